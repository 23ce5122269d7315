import Foundation
import FoundationNetworking
import KafkaClient
import TestSupport
import Testing
import Wire

/// `fanout lag --prometheus` while the cluster comes and goes.
@Suite struct ExporterTests {
    private let broker: BrokerProcess
    private let exporter: FanoutProcess
    private let url: String

    init() throws {
        broker = try BrokerProcess()
        #expect(
            try FanoutProcess.run(["topics", "create", "--kafka", broker.address, "--partitions", "2"]).status == 0)
        exporter = try FanoutProcess([
            "lag", "--kafka", broker.address, "--prometheus", "127.0.0.1:0", "--interval", "200ms", "--timeout", "2s",
        ])
        #expect(exporter.waitForOutput("metrics are served at="))
        let found = try #require(exporter.text.firstMatch(of: #/at=(http://[0-9.:]+)/#))
        url = String(found.1)
    }

    private func scrape(_ path: String = "/metrics") -> String {
        guard let url = URL(string: url + path), let data = try? Data(contentsOf: url) else { return "" }
        return String(decoding: data, as: UTF8.self)
    }

    private func value(_ series: String) -> Double? {
        scrape().split(separator: "\n").first { $0.hasPrefix(series + " ") }.flatMap {
            Double($0.split(separator: " ")[1])
        }
    }

    @Test func `figures of a cluster that no longer answers are gone, and their age says since when; then it is back`()
        throws
    {
        defer { exporter.terminate() }
        #expect(eventually { value("fanout_lag_up") == 1 })
        let series = #"fanout_lag_messages{group="fanout.join",topic="chat.incoming",partition="1"}"#
        #expect(value(series) == 0)
        #expect(eventually { scrape("/readyz") == "ready\n" })
        #expect(try #require(value("fanout_lag_age_seconds")) < 20)

        broker.kill()
        #expect(eventually { value("fanout_lag_up") == 0 })
        #expect(value(series) == nil)
        #expect(!scrape().contains("fanout_lag_state"))
        // Any code but 2xx reads as nothing here.
        #expect(scrape("/readyz") != "ready\n")
        let age = try #require(value("fanout_lag_age_seconds"))
        #expect(eventually { (value("fanout_lag_age_seconds") ?? 0) > age + 0.5 })

        try broker.restart()
        #expect(eventually(seconds: 40) { value("fanout_lag_up") == 1 && value(series) == 0 })
        #expect(exporter.terminate() == 0)
    }

    @Test func `a scrape does not wait for a look that hangs`() throws {
        defer { exporter.terminate() }
        #expect(eventually { value("fanout_lag_up") == 1 })
        let slow = try FanoutProcess([
            "lag", "--kafka", broker.address, "--prometheus", "127.0.0.1:0", "--interval", "100ms", "--timeout", "60s",
        ])
        defer { slow.kill() }
        #expect(slow.waitForOutput("metrics are served at="))
        let found = try #require(slow.text.firstMatch(of: #/at=(http://[0-9.:]+)/#))
        let metrics = try #require(URL(string: "\(found.1)/metrics"))
        #expect(eventually { (try? String(contentsOf: metrics, encoding: .utf8))?.contains("fanout_lag_up 1") == true })
        kill(broker.pid, SIGSTOP)
        defer { kill(broker.pid, SIGCONT) }
        let start = ContinuousClock.now
        for _ in 0..<20 { #expect(try String(contentsOf: metrics, encoding: .utf8).contains("fanout_lag_age_seconds")) }
        #expect(ContinuousClock.now - start < .seconds(20), "a look may take 60 s now")
    }

    @Test
    func `every figure of the table is served: rates, time to catch up, clamps, ages of commits, owners, draining`()
        throws
    {
        defer { exporter.terminate() }
        let configuration = KafkaConfiguration(bootstrapServers: broker.address)
        let admin = try Admin(configuration)
        defer { admin.close(deadlineMs: 1000) }
        let names = Names()
        let member = try Member("fanout.push", of: [names[.push]], configuration, name: "push-7")
        defer { member.leave() }
        try member.commitAll(admin)
        try admin.setGroupOffsets(
            "fanout.delivery", [CommittedOffset(TopicPartition(names[.deliveries], 0), offset: 99)])
        let producer = try Producer(configuration)
        var json = JSONWriter()
        InstanceRecord(
            instance: "chat-9", epoch: 1, pushAddress: "a:1", publicURL: "ws://a", connections: 3, isDraining: true,
            ts: nowMs
        ).write(to: &json)
        let key = Array("chat-9".utf8)
        _ = try producer.produce(
            producer.topic(names[.instances]), key: key.span, value: json.bytes.span, tag: 0)
        #expect(producer.flush(deadlineMs: 10_000) { _ in })
        _ = producer.close(deadlineMs: 1000) { _ in }
        for line in [
            #"fanout_lag_written_per_second{group="fanout.join",topic="chat.members"} 0"#,
            #"fanout_lag_consumed_per_second{group="fanout.join",topic="chat.incoming"} 0"#,
            #"fanout_lag_catch_up_seconds{group="fanout.push",topic="chat.push"} 0"#,
            #"fanout_lag_clamped{group="fanout.delivery",topic="chat.deliveries",partition="0"} 1"#,
            #"fanout_lag_clamped{group="fanout.delivery",topic="chat.deliveries",partition="1"} 0"#,
            #"fanout_lag_owner{group="fanout.push",topic="chat.push",partition="1",member="push-7""#,
            #"fanout_lag_members{group="fanout.push",topic="chat.push"} 1"#,
            #"fanout_lag_commit_age_seconds{group="fanout.push",topic="chat.push",partition="0"} "#,
            #"fanout_instance_draining{instance_name="chat-9"} 1"#,
            #"fanout_instance_connections{instance_name="chat-9"} 3"#,
            "fanout_lag_look_seconds 0.",
        ] {
            #expect(eventually { scrape().contains("\n" + line) }, "\(line)\n\(scrape())")
        }
    }
}
