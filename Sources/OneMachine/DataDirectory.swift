import System

/// Everything that `fanout up` keeps, in one directory:
///
///     VERSION       the layout's number
///     lock          held while it runs
///     secrets       name=value: keys and passwords, made on the first start, readable by the owner only
///     postgres/     the private database cluster, owned by the user that runs it
///     broker/       the log
///     join/         checkpoints of the membership table
///     logs/         what Postgres says
struct DataDirectory: ~Copyable {
    static let layout = "1"

    let path: String
    /// Held for as long as this value lives.
    private let lock: File
    let isNew: Bool
    let secrets: Secrets

    struct Secrets: Sendable, Equatable {
        /// Signs the users' tokens (HS256).
        var tokenKey: String
        /// Shared by chat servers and delivery workers.
        var linkSecret: String
        var postgresPassword: String
    }

    static func open(_ path: String) throws -> DataDirectory {
        do {
            try Directory.create(path)
        } catch {
            throw OneMachineError(.directory, "cannot use \(path): \(error); choose another with --dir")
        }
        let lock = try lock(path)
        let isNew = try checkLayout(path)
        for name in ["broker", "join", "logs"] { try Directory.create("\(path)/\(name)") }
        let secrets = try secrets(path + "/secrets")
        // Written last: a directory whose making was interrupted holds nothing that anything depends on yet.
        if isNew { try File.replaceAtomically(path + "/VERSION", with: layout + "\n") }
        return DataDirectory(path: path, lock: lock, isNew: isNew, secrets: secrets)
    }

    /// Whether the directory is still to be filled.
    private static func checkLayout(_ path: String) throws -> Bool {
        if let version = try? File.text(of: path + "/VERSION") {
            let found = version.split(separator: "\n").first.map(String.init) ?? ""
            guard found == layout else {
                throw OneMachineError(
                    .otherVersion,
                    "\(path) holds the data of another version of fanout (layout \(found), this one uses \(layout));"
                        + " start that version, or choose another directory with --dir")
            }
            return false
        }
        let ours: Set = ["lock", "broker", "join", "logs", "secrets"]
        if let stranger = try Directory.list(path).sorted().first(where: { !ours.contains($0) }) {
            throw OneMachineError(
                .directory, "\(path) holds other files (\(stranger), …); choose an empty directory with --dir")
        }
        return true
    }

    var postgres: String { path + "/postgres" }
    var broker: String { path + "/broker" }
    var join: String { path + "/join" }
    var logs: String { path + "/logs" }

    private static func lock(_ path: String) throws -> File {
        let file = try File(path + "/lock", .readWrite, create: .ifMissing)
        do {
            try file.lock(holder: "another fanout up")
        } catch {
            throw OneMachineError(
                .inUse, "\(path) is used by another fanout up; stop that one, or choose another directory with --dir")
        }
        return file
    }

    /// The secrets of a directory that has been used before.
    static func readSecrets(_ path: String) throws -> Secrets {
        var values: [Substring: Substring] = [:]
        for line in try File.text(of: path).split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            values[line[..<equals]] = line[line.index(after: equals)...]
        }
        guard let token = values["token-key"], let link = values["link-secret"],
            let password = values["postgres-password"]
        else {
            throw OneMachineError(.directory, "\(path) is damaged: it lacks a secret that this data was made with")
        }
        return Secrets(tokenKey: String(token), linkSecret: String(link), postgresPassword: String(password))
    }

    private static func secrets(_ path: String) throws -> Secrets {
        if File.exists(path) { return try readSecrets(path) }
        let made = Secrets(tokenKey: random(), linkSecret: random(), postgresPassword: random())
        let text =
            "token-key=\(made.tokenKey)\nlink-secret=\(made.linkSecret)\npostgres-password=\(made.postgresPassword)\n"
        try File.replaceAtomically(path, with: text, permissions: 0o600)
        return made
    }

    /// 256 bits from the system's generator, in hexadecimal.
    private static func random() -> String {
        var generator = SystemRandomNumberGenerator()
        return (0..<4).map { _ in
            let digits = String(generator.next() as UInt64, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}
