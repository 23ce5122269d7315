internal import CRdKafka

/// What became of one record.
public struct DeliveryReport: Sendable {
    /// The caller's own mark of the record, as given to `produce`.
    public let tag: UInt64
    public let topic: ProducerTopic
    public let partition: Int32
    /// The record's place in its partition; nil when it failed.
    public let offset: Int64?
    /// The timestamp the record was given, or the broker's when the topic uses LogAppendTime; nil if unknown.
    public let timestampMs: Int64?
    let rawError: rd_kafka_resp_err_t
    /// False if the record certainly is not in the log; a failed record that may have been written says true.
    public let mayBeWritten: Bool
    /// It may be in the log twice: it was sent again in a way by which the broker could not know it again.
    public internal(set) var mayBeRepeated = false

    public var succeeded: Bool { rawError == RD_KAFKA_RESP_ERR_NO_ERROR }

    public var error: KafkaError? {
        succeeded ? nil : KafkaError(rawError, place: "delivery to partition \(partition)")
    }
}
