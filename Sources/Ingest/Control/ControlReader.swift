import KafkaClient
import Runtime
import Synchronization
import System
import Wire

/// Reads what every chat server has to know of the others: `chat.instances`, for the least loaded one, and `chat.users`, for
/// whose tokens are no longer good. One thread for all loops; it starts each topic from its beginning, since both are
/// compacted and small.
final class ControlReader {
    private let consumer: Consumer
    private let loop: EventLoop
    private let directory: InstanceDirectory
    private let onUsers: ([UserRow]) -> Void
    private let log: Log
    private let faults: ReadFaults
    private let users: ConsumerTopic
    private let instances: ConsumerTopic
    private var registration: Registration?
    /// Partitions of `chat.users` whose end has not been seen: until then somebody revoked might be let in.
    private var unread: Set<Int32> = []
    /// Partitions of `chat.instances` whose end has not been seen. What stands there from before tells of nobody who is
    /// there now: whoever is says so again within a second.
    private var unreadInstances: Set<Int32> = []
    private var clocks: ClockWatch

    /// Raised when `chat.users` has been read to its end.
    final class Progress: Sendable {
        let isCaughtUp = Atomic(false)
        let condition: Health.Condition

        init(_ condition: Health.Condition) { self.condition = condition }
    }
    private let progress: Progress

    init(
        _ configuration: IngestConfiguration, on loop: EventLoop, directory: InstanceDirectory, progress: Progress,
        log: Log, metrics: Metrics, faults: ReadFaults, onUsers: @escaping ([UserRow]) -> Void
    ) throws(KafkaError) {
        self.loop = loop
        self.directory = directory
        self.progress = progress
        self.log = log
        clocks = ClockWatch(metrics, log: log)
        self.faults = faults
        self.onUsers = onUsers
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        options.startWithoutCommit = .earliest
        consumer = try Consumer(configuration.kafka, options)
        users = consumer.topic(configuration.names[.users])
        instances = consumer.topic(configuration.names[.instances])
        let (usersName, instancesName) = (configuration.names[.users], configuration.names[.instances])
        let admin = try Admin(configuration.kafka)
        defer { _ = admin.close(deadlineMs: 1000) }
        let counts = try admin.partitionCounts(of: [usersName, instancesName], timeoutMs: 10_000)
        unread = Set(0..<counts[0])
        unreadInstances = Set(0..<counts[1])
        var starts = (0..<counts[0]).map { PartitionStart(TopicPartition(usersName, $0), at: .beginning) }
        starts += (0..<counts[1]).map { PartitionStart(TopicPartition(instancesName, $0), at: .beginning) }
        try consumer.assign(starts)
    }

    func start() throws(SystemError) {
        registration = try loop.watch(consumer.wakeDescriptor) { [unowned self] _ in poll() }
        poll()
    }

    func close() {
        registration?.cancel()
        registration = nil
        consumer.close(deadlineMs: 1000)
    }

    private func poll() {
        var rows: [UserRow] = []
        do {
            let batch = consumer.poll(maxMessages: 2000)
            for index in 0..<batch.count {
                let message = batch[index]
                if message.topic == instances {
                    if !unreadInstances.contains(message.partition) { takeInstance(message.key, message.value) }
                } else if let row = user(message.key, message.value) {
                    rows.append(row)
                }
            }
            take(batch.event)
        }
        if !rows.isEmpty { onUsers(rows) }
    }

    private func takeInstance(_ key: Span<UInt8>?, _ value: Span<UInt8>?) {
        guard let value else {
            if let key { directory.remove(String(showing: key)) }
            return
        }
        do {
            let record = try InstanceRecord(decoding: value)
            directory.put(record, nowMs: Int64(loop.monotonicMs))
            clocks.note(
                record.instance, writtenMs: record.ts, wallMs: loop.nowMs, nowMs: Int64(loop.monotonicMs))
        } catch {
            log.warning("a record of chat.instances cannot be read", ["error": .init(error)])
        }
    }

    /// A deleted user is a disabled one. After compaction only the tombstone tells of it.
    private func user(_ key: Span<UInt8>?, _ value: Span<UInt8>?) -> UserRow? {
        do {
            guard let value else {
                guard let key else { return nil }
                var row = try UserRow(decoding: key)
                row.disabled = true
                return row
            }
            let change = try ChangeEnvelope(decoding: value)
            var row = try UserRow(decoding: value.extracting(change.row))
            if change.operation == .delete { row.disabled = true }
            return row
        } catch {
            log.warning("a record of chat.users cannot be read", ["error": .init(error)])
            return nil
        }
    }

    private func take(_ event: ConsumerEvent?) {
        faults.tell(event)
        switch event {
        case .endOfPartition(let partition, _):
            guard partition.topic == consumer.name(of: users) else {
                unreadInstances.remove(partition.partition)
                return
            }
            guard unread.remove(partition.partition) != nil, unread.isEmpty else { return }
            progress.isCaughtUp.store(true, ordering: .releasing)
            progress.condition.met()
        case .error(let error, _): log.warning("reading control topics", ["error": .init(error)])
        case .lostPlace(let place):
            // Both topics are compacted: what counts of them is in whatever log is there, from its beginning on.
            do throws(KafkaError) { try consumer.seek([place.unread]) } catch {
                log.error("cannot read a control topic again", ["error": .init(error)])
            }
        case .assigned, .revoked, .committed, .passedOver, nil: break
        }
    }
}
