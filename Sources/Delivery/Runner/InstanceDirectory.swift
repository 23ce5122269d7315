import KafkaClient
import PushLink
import Runtime
import System
import Wire

/// Follows `chat.instances`: who is there, and where.
final class InstanceDirectory {
    private let consumer: Consumer
    private let topic: String
    private var wake: Registration?
    private unowned var runner: DeliveryRunner?
    /// Until the log has been read to its end.
    private var past: PastAnnouncements? = PastAnnouncements()
    private var clocks: ClockWatch

    init(_ configuration: DeliveryConfiguration) throws(KafkaError) {
        clocks = ClockWatch(configuration.metrics, log: configuration.log)
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        consumer = try Consumer(configuration.kafka, options)
        topic = configuration.names[.instances]
    }

    func start(on loop: EventLoop, _ runner: DeliveryRunner) throws {
        self.runner = runner
        try consumer.assign([PartitionStart(TopicPartition(topic, 0), at: .beginning)])
        wake = try loop.watch(consumer.wakeDescriptor) { [unowned self] _ in read() }
    }

    func close() {
        wake?.cancel()
        consumer.close(deadlineMs: 1_000)
    }

    private func read() {
        guard let runner else { return }
        let now = runner.nowMs
        let batch = consumer.poll()
        for index in 0..<batch.count { take(batch[index], runner, now) }
        runner.faults.tell(batch.event)
        switch batch.event {
        case .lostPlace(let place): runner.readOn(place, consumer)
        case .endOfPartition: reachedEnd(runner, now)
        case .error(let error, _): runner.noteTrouble(error)
        default: break
        }
        runner.finishTurn()
    }

    private func take(_ message: borrowing Message, _ runner: DeliveryRunner, _ now: Int64) {
        guard let value = message.value else {
            guard let key = message.key else { return }
            let name = String(showing: key)
            past?.withdrawn(name)
            return runner.worker.withdrawn(name, nowMs: now)
        }
        guard let record = try? InstanceRecord(decoding: value) else { return }
        guard past == nil else {
            past?.take(record, timestampMs: message.timestampMs)
            return
        }
        clocks.note(
            record.instance, writtenMs: record.ts, wallMs: runner.loop.nowMs, nowMs: Int64(runner.loop.monotonicMs))
        announce(record, isPast: false, runner, now)
    }

    private func reachedEnd(_ runner: DeliveryRunner, _ now: Int64) {
        for record in past?.candidates ?? [] { announce(record, isPast: true, runner, now) }
        past = nil
        runner.worker.directoryRead(nowMs: now)
    }

    private func announce(_ record: InstanceRecord, isPast: Bool, _ runner: DeliveryRunner, _ now: Int64) {
        runner.worker.announced(
            LinkIdentity(name: record.instance, epoch: record.epoch), address: record.pushAddress,
            workers: record.workers, isPast: isPast, nowMs: now)
    }
}

/// Reads a partition of `chat.presence` to its end when it is taken over: who was online, and when everybody was last
/// seen.
final class PresenceReader {
    private let consumer: Consumer
    private let topic: String
    private var reading: Set<Int32> = []
    private var wake: Registration?
    private unowned var runner: DeliveryRunner?

    init(_ configuration: DeliveryConfiguration) throws(KafkaError) {
        var options = ConsumerOptions()
        options.reportsEndOfPartition = true
        consumer = try Consumer(configuration.kafka, options)
        topic = configuration.names[.presence]
    }

    func start(on loop: EventLoop, _ runner: DeliveryRunner) throws {
        self.runner = runner
        wake = try loop.watch(consumer.wakeDescriptor) { [unowned self] _ in read() }
    }

    func close() {
        wake?.cancel()
        consumer.close(deadlineMs: 1_000)
    }

    func read(_ partitions: [Int32]) {
        reading.formUnion(partitions)
        do {
            try consumer.add(partitions.map { PartitionStart(TopicPartition(topic, $0), at: .beginning) })
        } catch {
            runner?.fail(DeliveryError(.kafka, "\(error)"))
        }
    }

    func stop(_ partitions: [Int32]) {
        let left = reading.intersection(partitions)
        guard !left.isEmpty else { return }
        reading.subtract(left)
        try? consumer.remove(left.map { TopicPartition(topic, $0) })
    }

    private func read() {
        guard let runner else { return }
        let batch = consumer.poll()
        for index in 0..<batch.count {
            let message = batch[index]
            guard let value = message.value, let record = try? PresenceRecord(decoding: value) else { continue }
            runner.worker.restorePresence(
                message.partition, of: record.user, status: record.status == .online ? .online : .offline,
                lastSeen: record.lastSeen, nowMs: runner.nowMs)
        }
        runner.faults.tell(batch.event)
        switch batch.event {
        case .lostPlace(let place): runner.readOn(place, consumer)
        case .endOfPartition(let place, _):
            stop([place.partition])
            runner.worker.presenceRead(place.partition, nowMs: runner.nowMs)
            runner.finishTurn()
        case .error(let error, _): runner.noteTrouble(error)
        default: break
        }
    }
}
