/// Which log a position belongs to. An offset is worth something only in the log that it was taken from: a topic that
/// is deleted and made again under its name is another log, whose offsets begin again at 0.
///
/// It is the topic's id, which brokers give a topic for life (Apache Kafka from 2.8). Whoever keeps a position keeps
/// this beside it, and compares it before the position is used.
public struct LogIdentity: Hashable, Sendable {
    public let topicID: UUID

    /// nil for the id that brokers without topic ids name: nothing can be said of such a log.
    public init?(topicID: UUID) {
        guard topicID.high != 0 || topicID.low != 0 else { return nil }
        self.topicID = topicID
    }

    /// A short form, where every byte counts: in header `src`, in cursors. Two logs of one name have the same with a
    /// probability of one in four thousand million.
    public var tag: UInt32 {
        var mixed = topicID.high ^ topicID.low
        mixed ^= mixed >> 33
        mixed = mixed &* 0xff51_afd7_ed55_8ccd
        mixed ^= mixed >> 33
        return UInt32(truncatingIfNeeded: mixed)
    }
}

extension LogIdentity {
    /// The logs that the note of a stage's commit says its positions are of: `log=` of delivery's, `logs=` of the join's.
    public static func noted(in note: String) -> [Topic: LogIdentity] {
        var logs: [Topic: LogIdentity] = [:]
        for part in note.split(separator: " ") {
            if part.hasPrefix("log=") {
                logs[.deliveries] = UUID(part.dropFirst(4)).flatMap { LogIdentity(topicID: $0) }
            } else if part.hasPrefix("logs=") {
                let runs = part.dropFirst(5).split(separator: ",", omittingEmptySubsequences: false)
                for (topic, run) in zip([Topic.incoming, .members, .signals], runs) { logs[topic] = LogRun(run)?.log }
            }
        }
        return logs
    }
}

/// A stretch of one partition's life in which offsets only rise. It ends when the topic is made again under its name, and
/// when a broker has lost the partition's end and gives its offsets to other records.
public struct LogRun: Hashable, Sendable {
    /// nil where the broker has no topic ids.
    public var log: LogIdentity?
    /// Counts the runs of the partition.
    public var generation: Int32

    public init(log: LogIdentity? = nil, generation: Int32 = 0) {
        (self.log, self.generation) = (log, generation)
    }

    /// Stands for the run where every byte counts; nil when nothing is known of the log.
    public var tag: UInt32? { log.map { $0.tag ^ UInt32(bitPattern: generation) &* 0x9e37_79b9 } }

    // MARK: seq

    /// A message's `seq` is its offset in `chat.incoming` below the generation of its run, so that it rises within a chat
    /// also where offsets begin again. 53 bits in all: JavaScript's numbers hold no more.
    static let offsetBits = 40
    public static let generationMax: Int32 = 1 << 13 - 1

    public func seq(of offset: Int64) -> Int64 { Int64(generation) << Int64(Self.offsetBits) | offset }

    public static func generation(ofSeq seq: Int64) -> Int32 { Int32(clamping: seq >> Int64(offsetBits)) }

    /// Where the message stands in the run of its generation.
    public static func offset(ofSeq seq: Int64) -> Int64 { seq & (1 << Int64(offsetBits) - 1) }
}

/// `<topic id>.<generation>`, as notes of commits have it.
extension LogRun: CustomStringConvertible {
    public var description: String { "\(log.map { "\($0.topicID)" } ?? "-").\(generation)" }

    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, let generation = Int32(parts[1]), 0...Self.generationMax ~= generation else {
            return nil
        }
        self.init(generation: generation)
        guard parts[0] != "-" else { return }
        guard let id = UUID(parts[0]), let log = LogIdentity(topicID: id) else { return nil }
        self.log = log
    }
}
