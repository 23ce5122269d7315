import KafkaClient
import PushLink
import Runtime
import System
import Wire

/// What a worker writes to the log: presence, pushes, and records that it had to refuse. Never waits: what the producer has
/// no room for stays here, in order, and the worker makes no more of it than its own bounds allow.
final class LogOutput {
    private let configuration: DeliveryConfiguration
    private let producer: ResendingProducer
    private let presence: ProducerTopic
    private let push: ProducerTopic
    private let rejected: ProducerTopic
    private var wake: Registration?
    private var progress: WriteProgress
    private unowned var runner: DeliveryRunner?

    private enum Waiting {
        case presence(PresenceNotice)
        case push(UInt64, PushCoalescer.Entry)
        case rejected(UInt64, RejectedDelivery)
    }

    private var waiting = Ring<Waiting>()
    private var tag: UInt64 = 0
    /// The worker's mark of each push and refusal that is under way, by the producer's.
    private var marks: [UInt64: UInt64] = [:]

    private static let waitingMax = 20_000
    private static let pushesPerTurn = 1_000

    init(
        _ configuration: DeliveryConfiguration, on loop: EventLoop, _ health: Health
    ) throws(KafkaError) {
        self.configuration = configuration
        progress = WriteProgress(health)
        var options = ProducerOptions()
        // Stages behind this one wait for these records no differently than for a new one.
        options.deliveryTimeoutMs = 0
        options.lingerMs = 5
        producer = try ResendingProducer(configuration.kafka, options)
        presence = try producer.topic(configuration.names[.presence])
        push = try producer.topic(configuration.names[.push])
        rejected = try producer.topic(configuration.names[.rejected])
    }

    /// The partition counts of the two user-side topics that must agree. Waits for the topics to be there.
    func partitionCounts() throws(KafkaError) -> (deliveries: Int32, presence: Int32) {
        let names = [Topic.deliveries, .presence, .push, .rejected].map { configuration.names[$0] }
        let counts = try producer.warmUp(topics: names, timeoutMs: 30_000)
        return (counts[0], counts[1])
    }

    func start(on loop: EventLoop, _ runner: DeliveryRunner) throws {
        self.runner = runner
        wake = try loop.watch(producer.wakeDescriptor) { [unowned self] _ in takeReports() }
    }

    func close() {
        wake?.cancel()
        producer.close(deadlineMs: 2_000) { _ in }
    }

    private func takeReports() {
        do {
            try producer.poll { report in
                let mark = marks.removeValue(forKey: report.tag)
                if let error = report.error {
                    configuration.log.error("a record was not written", ["error": .string("\(error)")])
                    // What may be written another time is: nothing from its place on is committed.
                    guard error.code == .messageTooLarge else { return }
                } else {
                    progress.acknowledged()
                }
                if let mark { runner?.worker.outputDone(mark) }
            }
        } catch {
            runner?.fail(DeliveryError(.kafka, "\(error)"))
        }
        runner?.finishTurn()
    }

    func tellProgress() { progress.look(isSettled: producer.inFlight == 0) }

    /// So much waits for the producer that no more should be made.
    var isFull: Bool { waiting.count >= Self.waitingMax }

    func produce(from worker: DeliveryWorker, nowMs: Int64) {
        for (mark, refused) in worker.takeRejected() {
            configuration.log.warning(
                "rejected",
                ["at": .string("\(refused.partition)/\(refused.offset)"), "reason": .string(refused.reason)])
            waiting.append(.rejected(mark, refused))
        }
        if !isFull {
            for notice in worker.takePresence() { waiting.append(.presence(notice)) }
            for (mark, entry) in worker.takePushes(nowMs: nowMs, limit: Self.pushesPerTurn) {
                waiting.append(.push(mark, entry))
            }
        }
        do {
            while !waiting.isEmpty, try write(waiting[waiting.start]) == .queued { _ = waiting.removeFirst() }
        } catch {
            runner?.fail(DeliveryError(.kafka, "\(error)"))
        }
    }

    private func write(_ record: Waiting) throws(KafkaError) -> ProduceResult {
        var json = JSONWriter()
        var key: [UInt8] = []
        let next = tag + 1
        let result: ProduceResult
        switch record {
        case .presence(let notice):
            notice.user.uuid.appendText(to: &key)
            PresenceRecord(
                user: notice.user, status: notice.status == .online ? .online : .offline, lastSeen: notice.lastSeen
            ).write(to: &json)
            result = try producer.produce(presence, key: key.span, value: json.bytes.span, tag: next)
        case .push(let mark, let entry):
            entry.user.uuid.appendText(to: &key)
            PushRecord.write(
                user: entry.user, chat: entry.chat, count: entry.count, at: entry.newestMs, last: entry.last.span,
                to: &json)
            result = try producer.produce(push, key: key.span, value: json.bytes.span, tag: next)
            if result == .queued { marks[next] = mark }
        case .rejected(let mark, let refused):
            let source = SourcePosition(
                topic: configuration.names[.deliveries], partition: refused.partition, offset: refused.offset)
            RejectedRecord.write(
                reason: "malformed", detail: refused.reason, source: source, record: refused.record.span, to: &json)
            result = try producer.produce(rejected, key: nil, value: json.bytes.span, tag: next)
            if result == .queued { marks[next] = mark }
        }
        if result == .queued { tag = next }
        return result
    }
}
