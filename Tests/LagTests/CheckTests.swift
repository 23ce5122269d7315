import Foundation
import KafkaClient
import Lag
import TestSupport
import Testing
import Wire

/// `fanout lag --check` as a monitoring system calls it.
@Suite struct CheckTests {
    private let stage: Stage

    init() throws { stage = try Stage() }

    private func check(_ arguments: [String], environment: [String: String] = [:]) throws -> (
        code: Int32?, text: String
    ) {
        let (status, text) = try FanoutProcess.run(["lag", "--check"] + arguments, environment: environment)
        #expect(text.split(separator: "\n").count == 1, "\(text)")
        return (status, text)
    }

    /// Consumers in every stage's group that have read everything.
    private func workers() throws -> [Member] {
        try LagQuery.stages.map { stage, topics in
            let member = try Member(
                self.stage.names.group(stage), of: topics.map { self.stage.names[$0] }, self.stage.configuration)
            try member.commitAll(self.stage.admin)
            return member
        }
    }

    @Test func `0, 1 and 2: all is well, above half of a limit, above a limit, and nobody consumes what waits`() throws
    {
        let workers = try workers()
        let well = try check(stage.options + ["--max-messages", "1", "--max-seconds", "100000"])
        #expect(well.code == 0 && well.text.hasPrefix("OK: "), "\(well.text)")
        try stage.write(1, to: stage.names[.deliveries])
        let warning = try check(stage.options + ["--max-messages", "1"])
        #expect(warning.code == 1 && warning.text.hasPrefix("WARNING: 1 messages wait"), "\(warning.text)")
        let critical = try check(stage.options + ["--max-messages", "0"])
        #expect(critical.code == 2 && critical.text.hasPrefix("CRITICAL: 1 messages wait"), "\(critical.text)")
        let late = try check(stage.options + ["--max-seconds", "0"])
        #expect(late.code == 2 && late.text.contains("behind"), "\(late.text)")
        for worker in workers { worker.leave() }
        let nobody = try check(stage.options)
        #expect(nobody.code == 2 && nobody.text.contains("nobody consumes"), "\(nobody.text)")
    }

    @Test func `wrong usage is 3 and not 2, which would be critical`() throws {
        for arguments in [
            ["--nonsense"], ["--max-seconds", "many"], [], ["--kafka", "x:1", "--group", "("], ["--timeout"],
            ["--kafka", "x:1", "--kafka-property", "no.such=1"], ["--kafka", "x:1", "stray"],
            ["--config", "/does/not/exist"], ["--kafka", "x:1", "--json"],
        ] {
            let (code, text) = try check(arguments)
            #expect(code == 3 && text.hasPrefix("UNKNOWN: "), "\(arguments): \(text)")
        }
        let (status, text) = try FanoutProcess.run(["lag", "--nonsense"], environment: ["FANOUT_CHECK": "true"])
        #expect(status == 3 && text.hasPrefix("UNKNOWN: "), "\(text)")
        // Without --check it is wrong usage as everywhere.
        #expect(try FanoutProcess.run(["lag", "--nonsense"]).status == 2)
        for limit in ["--max-seconds", "--max-messages"] {
            let (status, text) = try FanoutProcess.run(["lag", "--kafka", "x:1", limit, "5"])
            #expect(status == 2 && text.contains("\(limit) is a limit of --check"), "\(text)")
        }
    }

    @Test func `brokers that are not there, do not speak Kafka, or refuse who we are: 3 with a line that says which`()
        throws
    {
        let nobody = try check(["--kafka", "127.0.0.1:1", "--timeout", "2s"])
        #expect(nobody.code == 3 && nobody.text.contains("refused"), "\(nobody.text)")
        let silent = try SilentServer()
        let mute = try check(["--kafka", silent.address, "--timeout", "1s"])
        #expect(mute.code == 3 && mute.text.hasPrefix("UNKNOWN: no answer from the cluster"), "\(mute.text)")
        let refused = try check(
            stage.options + [
                "--timeout", "3s", "--kafka-property", "security.protocol=SASL_PLAINTEXT", "--kafka-property",
                "sasl.mechanisms=PLAIN", "--kafka-property", "sasl.username=eve", "--kafka-property",
                "sasl.password=wrong-secret",
            ])
        #expect(refused.code == 3 && refused.text.contains("SASL"), "\(refused.text)")
        #expect(!refused.text.contains("wrong-secret"))
    }

    @Test func `what could not be seen is unknown while all else is well, and is told beside what is not`() throws {
        let workers = try workers()
        defer { for worker in workers { worker.leave() } }
        let silent = try SilentServer()
        let blind = ["--postgres", "postgres://u:secret@\(silent.address)/d", "--timeout", "3s"]
        let unknown = try check(stage.options + blind)
        #expect(unknown.code == 3 && unknown.text.contains("Postgres did not answer"), "\(unknown.text)")
        #expect(!unknown.text.contains("secret"))
        try stage.write(1, to: stage.names[.deliveries])
        let both = try check(stage.options + blind + ["--max-messages", "0"])
        #expect(both.code == 2 && both.text.contains("Postgres did not answer"), "\(both.text)")
    }
}

/// It always answers within `--timeout`, with what is known by then.
@Suite struct DeadlineTests {
    private static func timed(_ arguments: [String]) throws -> (status: Int32?, text: String, seconds: Double) {
        let start = ContinuousClock.now
        let (status, text) = try FanoutProcess.run(["lag"] + arguments, seconds: 30)
        return (status, text, (ContinuousClock.now - start) / .seconds(1))
    }

    @Test func `a database that takes the connection and says nothing costs the slots and not the answer`() throws {
        let stage = try Stage()
        let silent = try SilentServer()
        let (status, text, seconds) = try Self.timed(
            stage.options + ["--timeout", "3s", "--postgres", "postgres://\(silent.address)/d"])
        #expect(status == 0)
        #expect(text.contains("chat.incoming") && text.contains("missing: slots: Postgres did not answer"), "\(text)")
        // The machine may be busy; a frozen database without a deadline would take for ever.
        #expect(seconds < 8)
    }

    @Test func `a broker that freezes between the two looks leaves the first one's answer`() throws {
        let broker = try BrokerProcess()
        defer {
            kill(broker.pid, SIGCONT)
            broker.kill()
        }
        #expect(
            try FanoutProcess.run(["topics", "create", "--kafka", broker.address, "--partitions", "2"]).status == 0)
        let lag = try FanoutProcess([
            "lag", "--kafka", broker.address, "--timeout", "8s", "--interval", "4s", "--json",
        ])
        // The first look is over when it is quiet: the group coordinator has been asked and the announcements read.
        pace(microseconds: 2_500_000)
        kill(broker.pid, SIGSTOP)
        let start = ContinuousClock.now
        let status = lag.waitForExit(seconds: 20)
        #expect(ContinuousClock.now - start < .seconds(10))
        #expect(status == 0 && lag.text.contains("chat.incoming"), "\(lag.text)")
    }

    @Test func `a frozen broker is one line and exit status 1 within the timeout`() throws {
        let broker = try BrokerProcess()
        kill(broker.pid, SIGSTOP)
        defer {
            kill(broker.pid, SIGCONT)
            broker.kill()
        }
        let (status, text, seconds) = try Self.timed(["--kafka", broker.address, "--timeout", "1s"])
        #expect(status == 1)
        #expect(text.hasPrefix("no answer from the cluster: "), "\(text)")
        #expect(seconds < 6)
    }
}
