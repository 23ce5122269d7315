import PostgresClient
import System
import TestSupport
import Testing
import Wire

/// A server that lets nobody in over TCP without TLS, with a certificate from an authority of its own.
@Suite struct EncryptionTests {
    private let certificates: Certificates
    private let cluster: PostgresCluster

    init() throws {
        certificates = try Certificates()
        let rules = certificates.directory + "/rules"
        try File.replaceAtomically(
            rules,
            with: """
                local   all         all               trust
                hostssl all         all 127.0.0.1/32  trust
                hostssl replication all 127.0.0.1/32  trust

                """)
        if CurrentProcess.isRoot {
            let given = try ChildProcess.run("chown", ["-R", "postgres", certificates.directory])
            try #require(given.exit.isSuccess, "\(given.error)")
        }
        cluster = try PostgresCluster(settings: [
            "ssl": "on", "ssl_cert_file": "'\(certificates.certificate)'", "ssl_key_file": "'\(certificates.key)'",
            "hba_file": "'\(rules)'",
        ])
    }

    /// The connection string by which the server is reached as `host`, whatever its address.
    private func database(_ mode: String, host: String = "localhost", authority: String? = nil) -> String {
        let plain = cluster.connectionString(tcp: true).split(separator: " ").dropFirst().joined(separator: " ")
        return "\(plain) host=\(host) hostaddr=127.0.0.1 sslmode=\(mode)"
            + (authority.map { " sslrootcert=\($0)" } ?? "")
    }

    private static let cipher = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = $1::int"

    @Test func `a server that shows who it is gets a connection, and it is encrypted`() throws {
        defer { certificates.remove() }
        var postgres = try PostgresConnection(database("verify-full", authority: certificates.authority))
        let shown = try postgres.query(Self.cipher, [.int(Int64(postgres.backendPID))])
        #expect(shown.bool(0, 0) == true)
        #expect(shown.text(0, 1)?.hasPrefix("TLSv1.") == true)
        // More than fits a TLS record or a socket's buffer, in both directions.
        let large = String(repeating: "fanout ", count: 300_000)
        #expect(try postgres.query("SELECT $1::text", [.text(large)]).text(0, 0) == large)

        // By its address, which the certificate names too.
        var byAddress = try PostgresConnection(
            database("verify-full", host: "127.0.0.1", authority: certificates.authority))
        #expect(try byAddress.query("SELECT 7::int8").int(0, 0) == 7)
    }

    @Test func `a server that cannot show who it is, or wants TLS and gets none, is not talked to`() throws {
        defer { certificates.remove() }
        let stranger = try Certificates()
        defer { stranger.remove() }
        let wrong = [
            (database("verify-full", authority: stranger.authority), "certificate verify failed"),
            (database("verify-full", host: "elsewhere", authority: certificates.authority), "does not match host name"),
            (database("verify-full", authority: certificates.directory + "/none.pem"), "none.pem"),
            (database("disable"), "no encryption"),
        ]
        for (string, reason) in wrong {
            let error = #expect(throws: PostgresError.self) { _ = try PostgresConnection(string) }
            #expect(error?.description.contains(reason) == true, "\(error.map { "\($0)" } ?? "")")
            #expect(throws: PostgresError.self) { _ = try ReplicationConnection(string) }
        }
        // The authority alone, without the name: that is what verify-ca is for.
        var postgres = try PostgresConnection(
            database("verify-ca", host: "elsewhere", authority: certificates.authority))
        #expect(try postgres.query("SELECT 7::int8").int(0, 0) == 7)
    }

    @Test func `a channel's answers come through TLS without waiting for more bytes on the socket`() throws {
        defer { certificates.remove() }
        let loop = try EventLoop()
        let channel = PostgresChannel(database("verify-full", authority: certificates.authority), on: loop)
        defer { channel.close() }
        var bytes = 0
        var answers = 0
        for _ in 0..<500 {
            channel.query("SELECT repeat('x', 10000)") { result in
                answers += 1
                if case .success(let rows) = consume result { bytes += rows.text(0, 0)?.utf8.count ?? 0 }
            }
        }
        let deadline = SystemClock().monotonicNs + 60_000_000_000
        while answers < 500, SystemClock().monotonicNs < deadline { loop.runOnce(timeoutMs: 20) }
        #expect(answers == 500)
        #expect(bytes == 5_000_000)
    }

    @Test func `a slot is made and streamed through TLS`() throws {
        defer { certificates.remove() }
        let string = database("verify-full", authority: certificates.authority)
        var postgres = try PostgresConnection(string)
        try postgres.execute("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE PUBLICATION p FOR TABLE t")
        var replication = try ReplicationConnection(string)
        #expect(try postgres.query(Self.cipher, [.int(Int64(replication.backendPID))]).bool(0, 0) == true)
        let slot = "fanout_\(UInt32.random(in: 0 ... .max))"
        _ = try replication.createSlot(slot, temporary: true)
        try postgres.execute("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 2000) n")
        try replication.start(slot: slot, options: [("proto_version", "1"), ("publication_names", "p")])
        var inserts = 0
        let isComplete = try eventually {
            while case .message(let message) = try replication.next() {
                if message.bytes[0] == UInt8(ascii: "w"), message.bytes[25] == UInt8(ascii: "I") { inserts += 1 }
            }
            return inserts >= 2000
        }
        #expect(isComplete, "\(inserts)")
    }
}
