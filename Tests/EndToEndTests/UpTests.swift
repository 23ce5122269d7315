import Foundation
import PostgresClient
import TestSupport
import Testing

@Suite(.serialized) struct UpTests {
    @Test
    func `one command runs the pipeline, every device gets every message once, and a second start finds its data`()
        throws
    {
        let system = try RunningSystem()
        defer { RunningSystem.remove(system.directory) }
        let first = try system.bench(["--chats", "5", "--members", "8", "--rate", "50", "--duration", "3s"])
        #expect(first.status == 0, "\(first.text)\n\(system.up.text)")
        #expect(system.stop() == 0, "\(system.up.text)")

        let again = try RunningSystem(directory: system.directory)
        let tookMs = try #require(again.up.text.firstMatch(of: #/Fanout is up \((\d+) ms\)/#)).1
        print("fanout up was ready again after \(tookMs) ms")
        let second = try again.bench(["--chats", "5", "--members", "8", "--window", "4", "--duration", "2s"])
        #expect(second.status == 0, "\(second.text)\n\(again.up.text)")
        let family = again.processes
        #expect(family.count > 9)
        #expect(again.stop() == 0)
        #expect(family.filter(\.isAlive).isEmpty, "nobody is left after Ctrl-C")
    }

    /// Moments of the first start, by the file that has just been written: initdb is next; the stages are.
    @Test(arguments: ["VERSION", "stages.conf", "admin-token"])
    func `Ctrl-C is honoured at any moment of the start, and nobody is left`(file: String) throws {
        let directory = try RunningSystem.makeDirectory()
        defer { RunningSystem.remove(directory) }
        let up = try FanoutProcess(
            ["up", "--dir", directory, "--port", "0", "--kafka-port", "0", "--postgres-port", "0"])
        var family: [Relative] = []
        #expect(
            eventually(seconds: 60) {
                family += Relative.descendants(of: up.pid)
                return FileManager.default.fileExists(atPath: "\(directory)/\(file)")
            })
        up.signal(SIGINT)
        #expect(
            eventually(seconds: 60) {
                if up.isRunning { family += Relative.descendants(of: up.pid) }
                return !up.isRunning
            })
        #expect(up.waitForExit() == 0, "\(up.text)")
        #expect(!up.text.contains("is up") && !up.text.contains("fanout up:"), "\(up.text)")
        // What was killed takes a moment to be gone.
        #expect(eventually { family.filter(\.isAlive).isEmpty })

        // What was begun is no obstacle.
        let again = try RunningSystem(directory: directory)
        #expect(again.stop() == 0)
    }

    @Test func `a second Ctrl-C does not wait, leaves nobody, and the next start finds its data`() throws {
        let system = try RunningSystem()
        defer { RunningSystem.remove(system.directory) }
        let family = system.processes
        // A stage that does not answer would hold up the orderly stop for its whole grace.
        let stage = try #require(family.first { $0.command.contains(" push ") })
        kill(stage.id, SIGSTOP)
        system.up.signal(SIGINT)
        #expect(system.up.waitForOutput("stopping"))
        system.up.signal(SIGINT)
        #expect(system.up.waitForExit(seconds: 30) == 0)
        #expect(eventually { family.filter(\.isAlive).isEmpty })
        let again = try RunningSystem(directory: system.directory)
        #expect(again.stop() == 0)
    }

    @Test func `it runs on a Kafka and a database that are there already, and leaves its mark on neither unasked`()
        throws
    {
        let directory = try RunningSystem.makeDirectory()
        defer { RunningSystem.remove(directory) }
        let broker = try BrokerProcess()
        let cluster = try PostgresCluster()
        var connection = try PostgresConnection(cluster.connectionString())
        try connection.execute("CREATE ROLE guest SUPERUSER LOGIN PASSWORD 'hush-hush'")
        try connection.execute("CREATE DATABASE chat")
        let database = "postgres://guest:hush-hush@127.0.0.1:\(cluster.port)/chat"
        let arguments = [
            "up", "--dir", directory, "--port", "0", "--kafka", "127.0.0.1:\(broker.port)", "--postgres", database,
            "--webhook", "http://127.0.0.1:1/notify",
        ]
        // Every stage hands its properties to librdkafka, which refuses what it does not know.
        let refused = try FanoutProcess.run(arguments + ["--kafka-property", "no.such.property=1"])
        #expect(refused.status == 1 && refused.text.contains("no.such.property"), "\(refused.text)")

        let up = try FanoutProcess(
            arguments + ["--kafka-property", "client.rack=left,right"],
            environment: ["FANOUT_WEBHOOK_SECRET": "hush-hook"])
        #expect(up.waitForOutput("Ctrl-C stops everything", seconds: 90), "\(up.text)")
        #expect(!up.text.contains("hush-hush"))
        #expect(
            Relative.descendants(of: up.pid).allSatisfy {
                !$0.command.contains("broker") && !$0.command.contains("postgres")
            })
        let push = try #require(Relative.descendants(of: up.pid).first { $0.command.contains(" push ") })
        #expect(push.command.contains("--webhook http://127.0.0.1:1/notify") && !push.command.contains("hush-hook"))
        #expect(
            try String(contentsOfFile: "/proc/\(push.id)/environ", encoding: .utf8)
                .contains("FANOUT_WEBHOOK_SECRET=hush-hook"))
        let chat = try #require(up.text.firstMatch(of: #/(127\.0\.0\.1:\d+)/ /#)).1
        let tokenKey = try #require(
            String(contentsOfFile: directory + "/secrets", encoding: .utf8).firstMatch(of: #/token-key=(\w+)/#)
        ).1
        let load = try FanoutProcess.run(
            [
                "bench", "load", "--target", String(chat), "--chats", "3", "--members", "4", "--rate", "30",
                "--duration", "2s",
            ],
            environment: ["FANOUT_POSTGRES": database, "FANOUT_TOKEN_KEY": String(tokenKey)])
        #expect(load.status == 0, "\(load.text)\n\(up.text)")
        var guest = try PostgresConnection(cluster.connectionString(database: "chat"))
        let strangers = try guest.query("SELECT 1 FROM users WHERE name = 'Ada'").rowCount
        #expect(strangers == 0)
        up.signal(SIGINT)
        #expect(up.waitForExit(seconds: 60) == 0)
    }

    @Test func `demo people talk, type and read by themselves, and a person is answered`() throws {
        let system = try RunningSystem(arguments: ["--demo-traffic"])
        defer { RunningSystem.remove(system.directory) }
        let tail = try FanoutProcess([
            "tail", "signals", "--kafka", system.kafka, "--from", "beginning", "--json",
        ])
        let messages = try FanoutProcess([
            "tail", "messages", "--kafka", system.kafka, "--from", "beginning", "--json",
        ])
        #expect(
            eventually(seconds: 120) {
                let signals = tail.text
                return [#""typing""#, #""delivered""#, #""read""#].allSatisfy(signals.contains)
                    && messages.text.split(separator: "\n").count >= 3
            }, "\(system.up.text)\n\(messages.text)\n\(tail.text)")
        // The first of them is left to the person in front of the screen.
        #expect(!messages.text.contains(#""from":"fa000000-0000-4000-8000-000000000001""#))
        #expect(system.stop() == 0)
    }

    @Test func `a port in use, another's directory, another version: one clear line each`() throws {
        let directory = NSTemporaryDirectory() + "fanout-up-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        defer { RunningSystem.remove(directory) }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let broker = try BrokerProcess()
        let taken = try FanoutProcess.run(["up", "--dir", directory, "--port", "\(broker.port)"])
        #expect(taken.status == 1)
        #expect(
            taken.text
                == "fanout up: port \(broker.port), meant for the chat server, is in use; choose another with --port\n")

        try "9".write(toFile: directory + "/VERSION", atomically: true, encoding: .utf8)
        let version = try FanoutProcess.run(["up", "--dir", directory])
        #expect(version.status == 1 && version.text.contains("another version"), "\(version.text)")

        try FileManager.default.removeItem(atPath: directory + "/VERSION")
        try "mine".write(toFile: directory + "/letters", atomically: true, encoding: .utf8)
        let stranger = try FanoutProcess.run(["up", "--dir", directory])
        #expect(stranger.status == 1 && stranger.text.contains("holds other files (letters"), "\(stranger.text)")
        #expect(try String(contentsOfFile: directory + "/letters", encoding: .utf8) == "mine")
    }
}
