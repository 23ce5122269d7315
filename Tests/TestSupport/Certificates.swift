internal import System

/// Certificates made by the openssl program: an authority, and a server's for `localhost` and 127.0.0.1.
public struct Certificates: Sendable {
    public let directory: String
    public var authority: String { directory + "/ca.pem" }
    public var certificate: String { directory + "/server.pem" }
    public var key: String { directory + "/server.key" }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    public init() throws {
        directory = try Directory.createTemporary()
        try Self.openssl([
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=Test Authority", "-keyout", directory + "/ca.key", "-out", authority,
        ])
        try issue(name: "localhost")
    }

    /// Makes the server's certificate anew.
    public func issue(name: String) throws {
        try Self.openssl([
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=\(name)",
            "-addext", "subjectAltName=DNS:\(name),IP:127.0.0.1", "-keyout", key, "-out", directory + "/server.csr",
        ])
        try Self.openssl([
            "x509", "-req", "-in", directory + "/server.csr", "-CA", authority, "-CAkey", directory + "/ca.key",
            "-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", certificate,
        ])
    }

    public func remove() { try? Directory.removeAll(directory) }

    public static func openssl(_ arguments: [String]) throws {
        let result = try ChildProcess.run("openssl", arguments)
        guard result.exit.isSuccess else { throw Failure(description: "\(result.error)") }
    }
}
