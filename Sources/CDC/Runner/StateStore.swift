internal import KafkaClient
internal import PostgresClient

/// Keeps `StoredState` in Kafka.
final class StateStore {
    private let consumer: Consumer
    private let place: TopicPartition
    private(set) var current: StoredState?
    private var committing: StoredState?

    init(_ configuration: CDCConfiguration, topic: String) throws(CDCError) {
        place = TopicPartition(topic, 0)
        do throws(KafkaError) {
            consumer = try Consumer(
                configuration.kafka, ConsumerOptions(groupID: "\(configuration.group).\(configuration.slot)"))
            current = try consumer.committed([place], timeoutMs: 15_000)[0].flatMap { StoredState(text: $0.metadata) }
        } catch {
            throw CDCError(error, "cannot read CDC's position from Kafka")
        }
    }

    var wakeDescriptor: Int32 { consumer.wakeDescriptor }
    var isCommitting: Bool { committing != nil }

    private func offset(_ state: StoredState, _ end: Int64) -> CommittedOffset {
        CommittedOffset(place, offset: end, metadata: state.text)
    }

    /// Stores and waits for it.
    func store(_ state: StoredState, firstPartitionEnd: Int64) throws(CDCError) {
        do throws(KafkaError) {
            try consumer.commit([offset(state, firstPartitionEnd)], timeoutMs: 15_000)
        } catch {
            throw CDCError(error, "cannot store CDC's position in Kafka")
        }
        current = state
    }

    func storeLater(_ state: StoredState, firstPartitionEnd: Int64) throws(CDCError) {
        do throws(KafkaError) {
            try consumer.commitLater([offset(state, firstPartitionEnd)])
        } catch {
            throw CDCError(error, "cannot store CDC's position in Kafka")
        }
        committing = state
    }

    /// Answers true when a state has been stored since.
    func poll() throws(CDCError) -> Bool {
        let batch = consumer.poll(maxMessages: 1, timeoutMs: 0)
        guard case .committed(_, let error) = batch.event, let state = committing else { return false }
        committing = nil
        if let error {
            // Tried again with the next position; until then nothing is confirmed to Postgres.
            if error.isRetriable { return false }
            throw CDCError(error, "cannot store CDC's position in Kafka")
        }
        current = state
        return true
    }

    func close() { consumer.close(deadlineMs: 1000) }
}
