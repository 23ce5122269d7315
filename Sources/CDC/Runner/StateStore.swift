internal import KafkaClient
internal import PostgresClient
internal import Runtime

/// Keeps `StoredState` in Kafka.
final class StateStore {
    private let consumer: Consumer
    private let place: TopicPartition
    private let clock: any Clock
    private(set) var current: StoredState?
    /// The offset that was committed last.
    private(set) var offset: Int64 = 0
    private var committing: StoredState?

    private static let timeoutMs = 15_000
    /// Kafka's OFFSET_METADATA_TOO_LARGE.
    private static let metadataTooLarge: Int32 = 12

    init(_ configuration: CDCConfiguration, topic: String, clock: any Clock) throws(CDCError) {
        place = TopicPartition(topic, 0)
        self.clock = clock
        do throws(KafkaError) {
            consumer = try Consumer(
                configuration.kafka, ConsumerOptions(groupID: "\(configuration.group).\(configuration.slot)"))
            guard let committed = try consumer.committed([place], timeoutMs: Self.timeoutMs)[0] else { return }
            current = StoredState(text: committed.metadata)
            offset = committed.offset
        } catch {
            throw CDCError(error, "cannot read CDC's position from Kafka")
        }
    }

    var wakeDescriptor: Int32 { consumer.wakeDescriptor }
    var isCommitting: Bool { committing != nil }

    private func commit(of state: StoredState, _ end: Int64) throws(CDCError) -> CommittedOffset {
        guard state.fits else {
            throw CDCError(.transient, "too many transactions are under way to remember a snapshot of this moment")
        }
        offset = max(offset, end)
        return CommittedOffset(place, offset: offset, metadata: state.text)
    }

    private static func failure(_ error: KafkaError) -> CDCError {
        if error.rawCode == metadataTooLarge {
            return CDCError(
                .configuration, "Kafka does not take CDC's position: \(error)",
                hint: "the brokers with offset.metadata.max.bytes of \(StoredState.bytesMax) or more")
        }
        return CDCError(error, "cannot store CDC's position in Kafka")
    }

    /// Stores and waits for it. For the first state of all; the next ones are changes of it.
    func store(_ state: StoredState, firstPartitionEnd: Int64) throws(CDCError) {
        let commit = try commit(of: state, firstPartitionEnd)
        do throws(KafkaError) {
            try consumer.commit([commit], timeoutMs: Self.timeoutMs)
        } catch {
            throw Self.failure(error)
        }
        current = state
    }

    /// As if there had never been a start.
    func forget() throws(CDCError) {
        do throws(KafkaError) {
            try consumer.commit([CommittedOffset(place, offset: offset, metadata: "")], timeoutMs: Self.timeoutMs)
        } catch {
            throw Self.failure(error)
        }
        current = nil
    }

    /// Changes what is stored and waits for it, after what is on its way: either would undo the other, and the position
    /// could fall below one that Postgres has been told.
    func update(firstPartitionEnd: Int64, _ change: (inout StoredState) -> Void) throws(CDCError) {
        let deadline = clock.monotonicNs + UInt64(Self.timeoutMs) * 1_000_000
        while committing != nil {
            guard clock.monotonicNs < deadline else {
                throw CDCError(.transient, "Kafka does not answer a commit of CDC's position")
            }
            _ = try poll(timeoutMs: 50)
        }
        guard var state = current else { return }
        change(&state)
        try store(state, firstPartitionEnd: firstPartitionEnd)
    }

    func storeLater(_ state: StoredState, firstPartitionEnd: Int64) throws(CDCError) {
        let commit = try commit(of: state, firstPartitionEnd)
        do throws(KafkaError) {
            try consumer.commitLater([commit])
        } catch {
            throw CDCError(error, "cannot store CDC's position in Kafka")
        }
        committing = state
    }

    /// Answers true when a state has been stored since.
    func poll(timeoutMs: Int = 0) throws(CDCError) -> Bool {
        let batch = consumer.poll(maxMessages: 1, timeoutMs: timeoutMs)
        guard case .committed(_, let error) = batch.event, let state = committing else { return false }
        committing = nil
        if let error {
            // Tried again with the next position; until then nothing is confirmed to Postgres.
            if error.isRetriable { return false }
            throw Self.failure(error)
        }
        current = state
        return true
    }

    func close() { consumer.close(deadlineMs: 1000) }
}
