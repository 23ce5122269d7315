import System
import Wire

/// Where the parts of a running `fanout up` are, for tools on the same machine: `running.json` in its directory, there
/// from when everything is ready until it stops.
public struct RunningSystem: Sendable {
    /// The process of `fanout up`, whose children the stages are.
    public var processID: Int32
    public var port: UInt16
    public var kafka: String
    /// With the password; the file itself has none.
    public var postgres: String
    /// The HS256 key of its tokens.
    public var tokenKey: String

    static func file(in directory: String) -> String { directory + "/running.json" }

    static func write(to directory: String, port: UInt16, kafka: String, postgresPort: UInt16?) throws {
        var json = JSONWriter()
        json.object {
            $0.field("process", Int(CurrentProcess.id))
            $0.field("port", Int(port))
            $0.field("kafka", kafka)
            if let postgresPort { $0.field("postgres_port", Int(postgresPort)) }
        }
        try File.replaceAtomically(file(in: directory), with: json.bytes)
    }

    static func remove(from directory: String) { try? File.remove(file(in: directory)) }

    private enum Field: String, CaseIterable {
        case process, port, kafka
        case postgresPort = "postgres_port"
    }
    private static let fields = JSONFields<Field>()

    /// - Parameter postgres: the database, when it is not a private one.
    public static func read(_ directory: String, postgres: String? = nil) throws -> RunningSystem {
        guard let bytes = try? File.contents(of: file(in: directory)) else {
            throw OneMachineError(.notReady, "no fanout up runs in \(directory)")
        }
        let secrets = try DataDirectory.readSecrets(directory + "/secrets")
        var process: Int32?
        var port: UInt16?
        var postgresPort: UInt16?
        var kafka = ""
        var reader = JSONReader(bytes.span)
        try reader.beginObject()
        while let name = try reader.nextField() {
            switch fields.find(name, in: bytes.span) {
            case .process: process = Int32(exactly: try reader.readInt())
            case .port: port = UInt16(exactly: try reader.readInt())
            case .kafka: kafka = try reader.readText()
            case .postgresPort: postgresPort = UInt16(exactly: try reader.readInt())
            case nil: try reader.skipValue()
            }
        }
        let url =
            postgres
            ?? postgresPort.map { PrivatePostgres.url(port: $0, password: secrets.postgresPassword) }
        guard let process, let port, let url else {
            throw OneMachineError(.directory, "\(file(in: directory)) does not say where everything is")
        }
        return RunningSystem(
            processID: process, port: port, kafka: kafka, postgres: url, tokenKey: secrets.tokenKey)
    }
}
