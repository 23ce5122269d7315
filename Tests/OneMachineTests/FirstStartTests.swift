import Foundation
import PostgresClient
import Runtime
import System
import TestSupport
import Testing
import Wire

@testable import OneMachine

@Suite struct FirstStartTests {
    @Test func `demo people are made once: a group that was deleted does not come back at the next start`() throws {
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
        try DemoPeople.make(in: database)
        var connection = try PostgresConnection(database)
        func count(_ table: String) throws -> Int { try connection.query("SELECT 1 FROM \(table)").rowCount }
        #expect(try count("chats WHERE kind = 'group'") == 1)
        _ = try connection.query(
            "DELETE FROM members WHERE chat_id IN (SELECT chat_id FROM chats WHERE kind = 'group')")
        _ = try connection.query("DELETE FROM chats WHERE kind = 'group'")
        try DemoPeople.make(in: database)
        #expect(try count("chats WHERE kind = 'group'") == 0)
        #expect(try count("direct_chats") == 6)
    }

    @Test func `a machine without Postgres is told in one line what to install or to give`() throws {
        let empty = NSTemporaryDirectory() + "fanout-up-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try Directory.create(empty)
        defer { try? Directory.removeAll(empty) }
        let refusal = #expect(throws: OneMachineError.self) {
            try PrivatePostgres(data: empty + "/data", port: 1, password: "", logs: empty, installations: empty)
        }
        #expect(refusal?.code == .missingServer)
        let text = refusal?.description ?? ""
        #expect(text.contains("apt-get install postgresql") && text.contains("--postgres") && !text.contains("\n"))
    }

    @Test(arguments: [
        ("MemTotal:       25000000 kB\nMemFree: 1 kB\n", 1024), ("MemTotal:        4000000 kB\n", 488),
        ("MemTotal:         500000 kB\n", 128), ("", 128),
    ])
    func `Postgres gets an eighth of the memory, within limits`(memoryInfo: String, mebibytes: Int) {
        #expect(PrivatePostgres.bufferMiB(memoryInfo) == mebibytes)
    }

    @Test func `tokens are renewed while it runs, in files that only their owner can read`() throws {
        let directory = NSTemporaryDirectory() + "fanout-up-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try Directory.create(directory)
        defer { try? Directory.removeAll(directory) }
        var configuration = OneMachineConfiguration(directory: directory, executable: FanoutProcess.binary.path)
        (configuration.port, configuration.brokerPort, configuration.postgresPort) = (0, 0, 0)
        let pipeline = Pipeline(
            configuration: configuration, ports: try Ports(configuration),
            secrets: .init(
                tokenKey: String(repeating: "k", count: 64), linkSecret: "l", postgresPassword: "p"),
            directory: directory, postgresURL: "")
        try pipeline.writeSettings()
        let loop = try EventLoop()
        let passes = Passes(pipeline, everyMs: 10)
        try passes.write()
        passes.renew(on: loop, log: .none)
        for _ in 0..<2 {
            for file in [pipeline.demoUsersFile, pipeline.adminTokenFile] {
                try File.remove(file)
                while !File.exists(file) { loop.runOnce(timeoutMs: 100) }
                let attributes = try FileManager.default.attributesOfItem(atPath: file)
                #expect(attributes[.posixPermissions] as? Int == 0o600)
            }
        }
        #expect(try File.text(of: pipeline.demoUsersFile).contains("Barbara"))
        #expect(try File.text(of: pipeline.adminTokenFile).split(separator: ".").count == 3)
    }
}
