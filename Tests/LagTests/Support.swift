import Foundation
import KafkaClient
import Lag
import Runtime
import System
import TestSupport
import Testing
import Wire

/// A log with Fanout's topics and groups under names of the test's own, on which a test plays the stages.
final class Stage {
    let kafka: TestKafka
    let configuration: KafkaConfiguration
    let names = Names(prefix: TestKafka.unique("lag") + ".")
    let admin: Admin
    private let producer: Producer

    init(partitions: Int = 2) throws {
        kafka = try TestKafka.shared()
        configuration = KafkaConfiguration(bootstrapServers: kafka.address)
        admin = try Admin(configuration)
        producer = try Producer(configuration)
        var plan = TopicPlan.standard
        plan.partitions[.chat] = partitions
        plan.partitions[.user] = partitions
        _ = try plan.create(admin, names: names, replicationFactor: -1)
    }

    deinit {
        _ = producer.close(deadlineMs: 1000) { _ in }
        _ = try? admin.deleteTopics(Topic.allCases.map { names[$0] })
        admin.close(deadlineMs: 1000)
    }

    /// Further topics that the test makes.
    func makeTopic(_ name: String, partitions: Int = 1) throws -> String {
        let name = names.prefix + name
        for outcome in try admin.createTopics([NewTopic(name, partitions: partitions)]) {
            if let error = outcome.error { throw error }
        }
        return name
    }

    /// Writes records and answers their timestamps as the log has them.
    @discardableResult
    func write(_ count: Int, to topic: String, partition: Int32 = 0) throws -> [Int64] {
        let handle = try producer.topic(topic)
        let (key, value) = (Array("k".utf8), Array("{}".utf8))
        var times: [Int64] = []
        for _ in 0..<count {
            _ = try producer.produce(handle, partition: partition, key: key.span, value: value.span, tag: 0)
        }
        #expect(producer.flush(deadlineMs: 20_000) { times.append($0.timestampMs ?? 0) })
        try #require(times.count == count)
        return times
    }

    func commit(_ group: String, _ topic: String, _ offset: Int64, partition: Int32 = 0, note: String = "") throws {
        let place = TopicPartition(topic, partition)
        try admin.setGroupOffsets(group, [CommittedOffset(place, offset: offset, metadata: note)])
    }

    /// What a collector sees of these groups beside the stages' own.
    func query(_ groups: [String] = []) -> LagQuery {
        var query = LagQuery(kafka: configuration)
        query.names = names
        if !groups.isEmpty { query.otherGroups = { groups.contains($0) } }
        return query
    }

    /// The command line that says where all this is.
    var options: [String] { ["--kafka", kafka.address, "--topic-prefix", names.prefix] }
}

/// A consumer of a group, as a stage is: it takes what it is given, reads and commits.
final class Member {
    private let consumer: Consumer
    private(set) var assigned: [TopicPartition] = []

    init(_ group: String, of topics: [String], _ configuration: KafkaConfiguration, name: String? = nil) throws {
        var configuration = configuration
        if let name { configuration.clientID = name }
        var options = ConsumerOptions(groupID: group)
        options.fetchWaitMs = 20
        consumer = try Consumer(configuration, options)
        try consumer.subscribe(topics)
        let end = ContinuousClock.now + .seconds(30)
        while assigned.isEmpty {
            try #require(ContinuousClock.now < end, "the group gave nothing")
            let batch = consumer.poll(timeoutMs: 50)
            if case .assigned(let partitions) = batch.event {
                assigned = partitions
                try consumer.assign(partitions.map { PartitionStart($0, at: .committed) })
            }
        }
    }

    deinit { leave() }

    /// Commits the ends of all that it has, as if it had read that far.
    func commitAll(_ admin: Admin) throws {
        let ends = try admin.endOffsets(assigned).map { try $0.get() }
        try consumer.commit(zip(assigned, ends).map { CommittedOffset($0, offset: $1) })
    }

    func leave() { _ = consumer.close(deadlineMs: 5000) }
}

/// Somebody who takes connections and never says a word: a frozen server.
final class SilentServer {
    private let descriptor: Int32
    let port: Int

    init() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.descriptor = descriptor
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                unsafe bind(descriptor, generic, length) == 0 && listen(descriptor, 16) == 0
                    && getsockname(descriptor, generic, &length) == 0
            }
        }
        try #require(isBound)
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    deinit { close(descriptor) }

    var address: String { "127.0.0.1:\(port)" }
}

extension LagStatus {
    func row(_ group: String, _ topic: String, _ partition: Int32 = 0) -> LagRow? {
        rows.first { $0.group == group && $0.topic == topic && $0.partition == partition }
    }
}

var nowMs: Int64 { SystemClock().wallMs }
