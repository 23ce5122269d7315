internal import CRdKafka

/// What went wrong in a call to Kafka, with what librdkafka said about it.
///
/// `code` is the closed set that callers decide by; `rawCode` and `rawName` keep librdkafka's own verdict for logs.
public struct KafkaError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable, CaseIterable {
        /// A property is unknown, malformed or contradicts what Fanout needs. Nothing was started.
        case configuration
        /// No broker can be reached, or the connection broke. librdkafka keeps trying by itself.
        case transport
        /// The deadline passed; the request may still take effect.
        case timedOut
        /// The producer's queue is full (only where it is an error; `produce` names it as a result).
        case queueFull
        /// The broker refused who we are.
        case authentication
        /// The broker knows us and does not allow this.
        case authorization
        case unknownTopicOrPartition
        case topicAlreadyExists
        case messageTooLarge
        case invalidArgument
        /// The client instance can do no more: replace it. For a producer, see `ResendingProducer`.
        case fatal
        /// The position asked for is not in the log (any more).
        case offsetOutOfRange
        /// This member is not, or no longer, part of the group's current generation.
        case rebalanced
        /// Another member took this member's or producer's place.
        case fenced
        case groupNotFound
        case groupNotEmpty
        /// The broker, or Debian's librdkafka 2.0.2, cannot do this.
        case unsupported
        /// The message was removed from the producer's queues by `purge` or `close`.
        case purged
        /// The client was closed.
        case closed
        /// The broker cannot answer now: a leader moves, a coordinator loads. Retry.
        case unavailable
        case other
    }

    public let code: Code
    /// librdkafka's `rd_kafka_resp_err_t`: positive values come from the broker, negative ones from the library.
    public let rawCode: Int32
    public let rawName: String
    public let message: String
    /// The call which failed and what it was about, such as `produce chat.incoming/3`.
    public let place: String
    public let isFatal: Bool
    public let isRetriable: Bool

    /// Another process has joined the group under this one's name (`ConsumerOptions.groupInstanceID`).
    public var isNameTaken: Bool { isFatal && rawCode == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID.rawValue }

    public var description: String {
        "\(place): \(message) (\(rawName)\(isFatal ? ", fatal" : "")\(isRetriable ? ", may be retried" : ""))"
    }
}

extension KafkaError {
    /// A condition found by this module itself.
    init(_ code: Code, _ message: String, place: String) {
        self.code = code
        self.rawCode = 0
        self.rawName = code.rawValue
        self.message = message
        self.place = place
        self.isFatal = code == .fatal
        self.isRetriable = code == .timedOut || code == .unavailable || code == .queueFull
    }

    init(_ raw: rd_kafka_resp_err_t, message: String? = nil, place: String) {
        let code = Code(raw)
        self.code = code
        self.rawCode = raw.rawValue
        self.rawName = unsafe String(cString: rd_kafka_err2name(raw))
        if let message, !message.isEmpty {
            self.message = message
        } else {
            self.message = unsafe String(cString: rd_kafka_err2str(raw))
        }
        self.place = place
        self.isFatal = code == .fatal
        self.isRetriable = Self.retriable.contains(code)
    }

    /// Takes over an error object. This is the only place which destroys one.
    init?(consuming raw: OpaquePointer?, place: String) {
        guard let raw = unsafe raw else { return nil }
        let code = unsafe rd_kafka_error_code(raw)
        let isFatal = unsafe rd_kafka_error_is_fatal(raw) != 0
        self.code = isFatal ? .fatal : Code(code)
        self.rawCode = code.rawValue
        self.rawName = unsafe String(cString: rd_kafka_err2name(code))
        self.message = unsafe String(cString: rd_kafka_error_string(raw))
        self.place = place
        self.isFatal = isFatal
        self.isRetriable = unsafe rd_kafka_error_is_retriable(raw) != 0 || Self.retriable.contains(self.code)
        unsafe rd_kafka_error_destroy(raw)
    }

    private static let retriable: Set<Code> = [.transport, .timedOut, .queueFull, .rebalanced, .unavailable]
}

extension KafkaError.Code {
    init(_ raw: rd_kafka_resp_err_t) {
        switch raw {
        case RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__RESOLVE, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
            RD_KAFKA_RESP_ERR__NODE_UPDATE, RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
            self = .transport
        case RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
            self = .timedOut
        case RD_KAFKA_RESP_ERR__QUEUE_FULL:
            self = .queueFull
        case RD_KAFKA_RESP_ERR__AUTHENTICATION, RD_KAFKA_RESP_ERR__SSL, RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
            RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE, RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
            self = .authentication
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            self = .authorization
        case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
            self = .unknownTopicOrPartition
        case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
            self = .topicAlreadyExists
        case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
            self = .messageTooLarge
        case RD_KAFKA_RESP_ERR__INVALID_ARG, RD_KAFKA_RESP_ERR_INVALID_REQUEST, RD_KAFKA_RESP_ERR_INVALID_CONFIG,
            RD_KAFKA_RESP_ERR_INVALID_PARTITIONS, RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR,
            RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
            self = .invalidArgument
        case RD_KAFKA_RESP_ERR__FATAL:
            self = .fatal
        case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE, RD_KAFKA_RESP_ERR__NO_OFFSET, RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
            self = .offsetOutOfRange
        case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST,
            RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED:
            self = .rebalanced
        case RD_KAFKA_RESP_ERR__FENCED, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
            RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
            self = .fenced
        case RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND:
            self = .groupNotFound
        case RD_KAFKA_RESP_ERR_NON_EMPTY_GROUP:
            self = .groupNotEmpty
        case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
            RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED:
            self = .unsupported
        case RD_KAFKA_RESP_ERR__PURGE_QUEUE, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
            self = .purged
        case RD_KAFKA_RESP_ERR__DESTROY:
            self = .closed
        case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_NOT_COORDINATOR, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, RD_KAFKA_RESP_ERR__WAIT_COORD, RD_KAFKA_RESP_ERR_NOT_CONTROLLER,
            RD_KAFKA_RESP_ERR__RETRY:
            self = .unavailable
        default:
            self = .other
        }
    }
}
