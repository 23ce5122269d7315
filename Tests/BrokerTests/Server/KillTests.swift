import Foundation
import KafkaClient
import TestSupport
import Testing

/// The broker as a process that is killed in the middle of its work.
@Suite struct KillTests {
    @Test func `after twenty SIGKILLs under load every acknowledged record is there once, in order`() throws {
        var random = SeededGenerator.announced("KillTests")
        // A small journal, so that checkpoints and rotation are hit too.
        let broker = try BrokerProcess(["--journal-size", "2MiB"])
        let configuration = KafkaConfiguration(bootstrapServers: broker.address, clientID: "test")
        let admin = try Admin(configuration)
        let partitions: Int32 = 4
        for outcome in try admin.createTopics([
            NewTopic("kill", partitions: Int(partitions), configs: ["segment.bytes": "1000000"])
        ]) { #expect(outcome.error == nil) }
        let producer = try Producer(configuration)
        let topic = try producer.topic("kill")
        var next: UInt64 = 1
        var acknowledged: [UInt64: (partition: Int32, offset: Int64?)] = [:]
        var failures = 0
        func poll(_ ms: Int) {
            producer.poll(timeoutMs: ms) { report in
                if report.succeeded {
                    acknowledged[report.tag] = (report.partition, report.offset)
                } else {
                    failures += 1
                }
            }
        }
        let padding = String(repeating: "x", count: 180)
        for round in 0..<20 {
            let end = ContinuousClock.now + .milliseconds(Int.random(in: 30...250, using: &random))
            while ContinuousClock.now < end {
                for _ in 0..<200 where producer.inFlight < 20_000 {
                    let value = Array("\(next) \(padding)".utf8)
                    guard
                        try producer.produce(
                            topic, partition: Int32(next % UInt64(partitions)), key: nil, value: value.span, tag: next)
                            == .queued
                    else { break }
                    next += 1
                }
                poll(1)
            }
            let before = acknowledged.count
            broker.kill()
            try broker.restart()
            // It must serve again before the next round, or rounds would kill an idle broker.
            #expect(
                eventually(seconds: 60) {
                    poll(20)
                    return acknowledged.count > before || producer.inFlight == 0
                }, "round \(round): \(broker.text)")
        }
        #expect(
            producer.flush(deadlineMs: 60_000) { report in
                if report.succeeded {
                    acknowledged[report.tag] = (report.partition, report.offset)
                } else {
                    failures += 1
                }
            })
        #expect(failures == 0)
        broker.kill()
        try broker.restart()
        try check(configuration, partitions, acknowledged, sent: next - 1)
        producer.close(deadlineMs: 2000) { _ in }
        admin.close(deadlineMs: 2000)
    }

    private func check(
        _ configuration: KafkaConfiguration, _ partitions: Int32,
        _ acknowledged: [UInt64: (partition: Int32, offset: Int64?)], sent: UInt64
    ) throws {
        let consumer = try Consumer(configuration, ConsumerOptions())
        try consumer.assign((0..<partitions).map { PartitionStart(TopicPartition("kill", $0), at: .beginning) })
        var seen: [UInt64: (partition: Int32, offset: Int64)] = [:]
        var last = [UInt64](repeating: 0, count: Int(partitions))
        var repeats = 0
        var disorder = 0
        let isComplete = eventually(seconds: 60) {
            let batch = consumer.poll(maxMessages: 5000, timeoutMs: 100)
            for index in 0..<batch.count {
                let message = batch[index]
                guard let value = message.value else { continue }
                var tag: UInt64 = 0
                var place = 0
                while place < value.count, value[place] != 0x20 {
                    tag = tag * 10 + UInt64(value[place] - 0x30)
                    place += 1
                }
                if seen.updateValue((message.partition, message.offset), forKey: tag) != nil { repeats += 1 }
                if tag <= last[Int(message.partition)] { disorder += 1 }
                last[Int(message.partition)] = tag
            }
            return seen.count >= acknowledged.count && UInt64(seen.count) >= sent
        }
        #expect(isComplete, "\(seen.count) of \(acknowledged.count) acknowledged, \(sent) sent")
        #expect(repeats == 0)
        #expect(disorder == 0)
        let lost = acknowledged.filter { tag, place in
            guard let found = seen[tag] else { return true }
            return found.partition != place.partition || (place.offset.map { $0 != found.offset } ?? false)
        }
        #expect(lost.isEmpty, "\(lost.count) of \(acknowledged.count), e.g. \(lost.first.map { "\($0)" } ?? "")")
        _ = consumer.close(deadlineMs: 2000)
    }

    @Test func `committed offsets and topics survive SIGKILL and SIGTERM`() throws {
        let broker = try BrokerProcess()
        let configuration = KafkaConfiguration(bootstrapServers: broker.address, clientID: "test")
        var admin = try Admin(configuration)
        _ = try admin.createTopics([NewTopic("kept", partitions: 3, configs: ["retention.ms": "123456789"])])
        for round in 1...4 {
            let offsets = (0..<3).map {
                CommittedOffset(
                    TopicPartition("kept", Int32($0)), offset: Int64(round * 10 + $0), metadata: "note \(round)")
            }
            try admin.setGroupOffsets("group", offsets)
            if round % 2 == 0 { broker.kill() } else { broker.terminate() }
            try broker.restart()
            admin.close(deadlineMs: 1000)
            admin = try Admin(configuration)
            #expect(try admin.partitionCounts(of: ["kept"]) == [3])
            let found = try admin.groupOffsets("group", (0..<3).map { TopicPartition("kept", Int32($0)) })
            #expect(found.compactMap(\.offset).sorted() == offsets.map(\.offset))
            #expect(Set(found.map(\.metadata)) == ["note \(round)"])
        }
        admin.close(deadlineMs: 1000)
    }

    @Test func `a second broker is refused the data directory, and keeps off other networks`() throws {
        let broker = try BrokerProcess()
        let second = try FanoutProcess.run([
            "broker", "--data", broker.directory, "--listen", "127.0.0.1:0",
        ])
        #expect(second.status == 1)
        #expect(second.text.contains("in use by another broker"))
        let exposed = try FanoutProcess.run([
            "broker", "--data", broker.directory + "-other", "--listen", "0.0.0.0:0",
        ])
        #expect(exposed.status == 1)
        #expect(exposed.text.contains("--insecure-listen"))
        try? FileManager.default.removeItem(atPath: broker.directory + "-other")
    }
}
