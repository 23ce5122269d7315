/// A line that librdkafka has to say. It may come from any of its threads.
public struct KafkaLogLine: Sendable {
    public enum Level: Int32, Sendable {
        case emergency = 0
        case alert, critical, error, warning, notice, info, debug
    }

    public let level: Level
    /// librdkafka's own tag, such as `FAIL` or `MAXPOLL`.
    public let facility: String
    public let message: String
}

public typealias KafkaLogSink = @Sendable (KafkaLogLine) -> Void
