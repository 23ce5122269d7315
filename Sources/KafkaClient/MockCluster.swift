// librdkafka's built-in mock cluster, for unit tests.
//
// It speaks the wire protocol for producing, fetching and groups, keeps everything in memory, and can be told to fail
// or to be slow. It has no topic configuration, no deletion and no admin requests beyond metadata: whatever needs those,
// or durability, is tested against a real broker.
internal import CRdKafka

@safe
public final class MockCluster {
    private let handle: ClientHandle
    private let raw: OpaquePointer

    /// Request kinds that failures can be pushed for.
    public enum Request: Int16, Sendable {
        case produce = 0
        case fetch = 1
        case listOffsets = 2
        case metadata = 3
        case offsetCommit = 8
        case offsetFetch = 9
        case findCoordinator = 10
        case joinGroup = 11
        case heartbeat = 12
        case leaveGroup = 13
        case syncGroup = 14
        case initProducerID = 22
    }

    public enum Failure: Sendable {
        case notLeader, outOfOrderSequence, duplicateSequence, unknownProducerID, requestTimedOut
        case coordinatorNotAvailable, offsetOutOfRange, messageTooLarge, topicAuthorization, unknownTopic
        case rebalanceInProgress, disconnect

        var raw: rd_kafka_resp_err_t {
            switch self {
            case .notLeader: RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
            case .outOfOrderSequence: RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER
            case .duplicateSequence: RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER
            case .unknownProducerID: RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID
            case .requestTimedOut: RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
            case .coordinatorNotAvailable: RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
            case .offsetOutOfRange: RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
            case .messageTooLarge: RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
            case .topicAuthorization: RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            case .unknownTopic: RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            case .rebalanceInProgress: RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS
            // The connection is closed in place of an answer.
            case .disconnect: RD_KAFKA_RESP_ERR__TRANSPORT
            }
        }
    }

    public init(brokers: Int = 1) throws(KafkaError) {
        handle = try ClientHandle(.producer, PropertySet(), events: 0, log: { _ in }, place: "mock cluster")
        guard let made = unsafe rd_kafka_mock_cluster_new(handle.raw, Int32(brokers)) else {
            throw KafkaError(.other, "could not start", place: "mock cluster")
        }
        unsafe raw = made
    }

    deinit { unsafe rd_kafka_mock_cluster_destroy(raw) }

    public var bootstrapServers: String { unsafe String(cString: rd_kafka_mock_cluster_bootstraps(raw)) }
    public var configuration: KafkaConfiguration { KafkaConfiguration(bootstrapServers: bootstrapServers) }

    public func createTopic(_ name: String, partitions: Int) throws(KafkaError) {
        try check(unsafe rd_kafka_mock_topic_create(raw, name, Int32(partitions), 1), "create \(name)")
    }

    /// Answers that there is no such topic; the mock otherwise makes topics when they are asked for.
    public func hideTopic(_ name: String) {
        unsafe rd_kafka_mock_topic_set_error(raw, name, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
    }

    /// The next requests of this kind, to any broker, fail like this, one failure each.
    public func fail(_ request: Request, with failures: [Failure]) {
        let codes = failures.map(\.raw)
        unsafe rd_kafka_mock_push_request_errors_array(raw, request.rawValue, codes.count, codes)
    }

    public func stopFailing(_ request: Request) {
        unsafe rd_kafka_mock_clear_request_errors(raw, request.rawValue)
    }

    public func setDown(broker: Int) throws(KafkaError) {
        try check(unsafe rd_kafka_mock_broker_set_down(raw, Int32(broker)), "broker down")
    }

    public func setUp(broker: Int) throws(KafkaError) {
        try check(unsafe rd_kafka_mock_broker_set_up(raw, Int32(broker)), "broker up")
    }

    /// Every answer of this broker comes so much later.
    public func setLatency(broker: Int, milliseconds: Int) throws(KafkaError) {
        try check(unsafe rd_kafka_mock_broker_set_rtt(raw, Int32(broker), Int32(milliseconds)), "broker latency")
    }

    public func setLeader(_ partition: TopicPartition, broker: Int) throws(KafkaError) {
        try check(
            unsafe rd_kafka_mock_partition_set_leader(raw, partition.topic, partition.partition, Int32(broker)),
            "leader of \(partition)")
    }

    private func check(_ code: rd_kafka_resp_err_t, _ place: String) throws(KafkaError) {
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "mock cluster: \(place)") }
    }
}

extension Producer {
    /// Puts this producer in the state it is in after a failure that idempotent writing cannot recover from.
    public func failFatallyForTests() {
        _ = unsafe rd_kafka_test_fatal_error(handle.raw, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "test")
    }
}
