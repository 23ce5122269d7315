import Runtime
import System
import Wire

/// The tokens that `fanout up` hands out, each in a file that only its owner may read: the demo people's, which the chat
/// server gives to the demo page, and one for the operations page. Good for a week and renewed every day, so that one can
/// still log in to a system that has run for a month.
final class Passes {
    private static let lifetime = "7d"
    private static let dayMs = 24 * 60 * 60 * 1000

    private let pipeline: Pipeline
    private let everyMs: Int

    init(_ pipeline: Pipeline, everyMs: Int = Passes.dayMs) {
        self.pipeline = pipeline
        self.everyMs = everyMs
    }

    /// Returns the operator's.
    @discardableResult
    func write() throws -> String {
        if pipeline.hasDemoPeople { try writeDemoUsers() }
        let admin = try token(for: DemoPeople.operatorID, scope: "admin")
        try File.replaceAtomically(pipeline.adminTokenFile, with: admin + "\n", permissions: 0o600)
        return admin
    }

    /// Writes them again each day, for as long as the loop runs.
    func renew(on loop: EventLoop, log: Log) {
        loop.schedule(afterMs: everyMs) { [self] in
            do {
                try write()
            } catch {
                log.error("the tokens cannot be renewed; the next try is in a day", ["error": "\(error)"])
            }
            renew(on: loop, log: log)
        }
    }

    private func writeDemoUsers() throws {
        let tokens = try DemoPeople.all.map { try token(for: $0.id) }
        var json = JSONWriter()
        json.array { json in
            for (person, token) in zip(DemoPeople.all, tokens) {
                json.object {
                    $0.field("user", person.id)
                    $0.field("name", person.name)
                    $0.field("token", token)
                }
            }
        }
        try File.replaceAtomically(pipeline.demoUsersFile, with: json.bytes, permissions: 0o600)
    }

    private func token(for user: UserID, scope: String? = nil) throws -> String {
        let scopes = scope.map { ["--scope", $0] } ?? []
        let token = try pipeline.runToEnd(["token", "--user", user.description, "--expires", Self.lifetime] + scopes)
        return token.filter { !$0.isWhitespace }
    }
}
