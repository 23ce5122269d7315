/// A topic's settings: what was set, by Kafka's names, over the defaults, with the values parsed that the log needs.
///
/// Settings of Kafka that mean nothing on one machine are accepted within their known values, so that tools and topic
/// definitions written for Apache Kafka work unchanged; an unknown name or a bad value is refused.
struct TopicConfig: Equatable, Sendable {
    enum TimestampType: String { case createTime = "CreateTime", logAppendTime = "LogAppendTime" }

    /// Only what was set, by name: what DescribeConfigs calls dynamic.
    private(set) var overrides: [String: String]

    private(set) var segmentBytes = 256 << 20
    private(set) var segmentMs: Int64 = 604_800_000
    private(set) var retentionBytes: Int64 = -1
    private(set) var retentionMs: Int64 = 604_800_000
    private(set) var isCompacted = false
    private(set) var isDeleted = true
    private(set) var deleteRetentionMs: Int64 = 86_400_000
    private(set) var minCompactionLagMs: Int64 = 0
    private(set) var maxCompactionLagMs: Int64 = .max
    private(set) var minCleanableDirtyRatio = 0.5
    private(set) var maxMessageBytes = 1_048_588
    private(set) var timestampType = TimestampType.createTime

    struct Invalid: Error {
        let message: String
    }

    init() { overrides = [:] }

    init(overrides: [String: String]) throws(Invalid) {
        self.overrides = overrides
        for (name, value) in overrides {
            // A list grows with each incremental change.
            guard value.utf8.count <= Self.valueBytesMax else {
                throw Invalid(message: "\(name): a value of \(value.utf8.count) bytes")
            }
            try apply(name, value)
        }
    }

    /// What a setting's value is for DescribeConfigs: Kafka's number for the type.
    enum ValueType: Int8 { case boolean = 1, string, int, short, long, double, list }

    struct Setting {
        let name: String
        let defaultValue: String
        let type: ValueType
    }

    /// Every setting that exists, in the order in which it is described.
    static let settings: [Setting] = [
        Setting(name: "cleanup.policy", defaultValue: "delete", type: .list),
        Setting(name: "compression.type", defaultValue: "producer", type: .string),
        Setting(name: "delete.retention.ms", defaultValue: "86400000", type: .long),
        Setting(name: "file.delete.delay.ms", defaultValue: "60000", type: .long),
        Setting(name: "flush.messages", defaultValue: "9223372036854775807", type: .long),
        Setting(name: "flush.ms", defaultValue: "9223372036854775807", type: .long),
        Setting(name: "index.interval.bytes", defaultValue: "4096", type: .int),
        Setting(name: "max.compaction.lag.ms", defaultValue: "9223372036854775807", type: .long),
        Setting(name: "max.message.bytes", defaultValue: "1048588", type: .int),
        Setting(name: "message.timestamp.type", defaultValue: "CreateTime", type: .string),
        Setting(name: "min.cleanable.dirty.ratio", defaultValue: "0.5", type: .double),
        Setting(name: "min.compaction.lag.ms", defaultValue: "0", type: .long),
        Setting(name: "min.insync.replicas", defaultValue: "1", type: .int),
        Setting(name: "preallocate", defaultValue: "false", type: .boolean),
        Setting(name: "retention.bytes", defaultValue: "-1", type: .long),
        Setting(name: "retention.ms", defaultValue: "604800000", type: .long),
        Setting(name: "segment.bytes", defaultValue: "268435456", type: .int),
        Setting(name: "segment.index.bytes", defaultValue: "10485760", type: .int),
        Setting(name: "segment.jitter.ms", defaultValue: "0", type: .long),
        Setting(name: "segment.ms", defaultValue: "604800000", type: .long),
        Setting(name: "unclean.leader.election.enable", defaultValue: "false", type: .boolean),
    ]

    /// The smallest segment that may be asked for: small enough for tests, large enough that a hostile setting cannot
    /// make a file of every batch.
    private static let segmentBytesMin = 1024
    private static let valueBytesMax = 1024

    private mutating func apply(_ name: String, _ value: String) throws(Invalid) {
        func number(_ range: ClosedRange<Int64>) throws(Invalid) -> Int64 {
            guard let number = Int64(value), range.contains(number) else {
                throw Invalid(message: "\(name)=\(value): not a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        func oneOf(_ values: [String]) throws(Invalid) {
            guard values.contains(value) else {
                throw Invalid(message: "\(name)=\(value): not one of \(values.joined(separator: ", "))")
            }
        }
        switch name {
        case "cleanup.policy":
            let policies = value.split(separator: ",").map { $0.trimmingSpaces }
            guard !policies.isEmpty, policies.allSatisfy({ $0 == "delete" || $0 == "compact" }) else {
                throw Invalid(message: "cleanup.policy=\(value): not made of delete and compact")
            }
            isCompacted = policies.contains("compact")
            isDeleted = policies.contains("delete")
        case "compression.type":
            // Batches are stored as they come; the broker never recompresses.
            try oneOf(["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"])
        case "delete.retention.ms": deleteRetentionMs = try number(0...Int64.max)
        case "max.compaction.lag.ms": maxCompactionLagMs = try number(1...Int64.max)
        case "max.message.bytes": maxMessageBytes = Int(try number(0...Int64(Int32.max)))
        case "message.timestamp.type":
            try oneOf(["CreateTime", "LogAppendTime"])
            timestampType = TimestampType(rawValue: value) ?? .createTime
        case "min.cleanable.dirty.ratio":
            guard let ratio = Double(value), (0...1).contains(ratio) else {
                throw Invalid(message: "\(name)=\(value): not a number from 0 to 1")
            }
            minCleanableDirtyRatio = ratio
        case "min.compaction.lag.ms": minCompactionLagMs = try number(0...Int64.max)
        case "min.insync.replicas": _ = try number(1...1)
        case "retention.bytes": retentionBytes = try number(-1...Int64.max)
        case "retention.ms": retentionMs = try number(-1...Int64.max)
        case "segment.bytes": segmentBytes = Int(try number(Int64(Self.segmentBytesMin)...Int64(Int32.max)))
        case "segment.ms": segmentMs = try number(1...Int64.max)
        case "preallocate", "unclean.leader.election.enable": try oneOf(["true", "false"])
        case "file.delete.delay.ms", "flush.messages", "flush.ms", "index.interval.bytes", "segment.index.bytes",
            "segment.jitter.ms", "message.timestamp.before.max.ms", "message.timestamp.after.max.ms",
            "message.timestamp.difference.max.ms", "local.retention.ms", "local.retention.bytes":
            _ = try number(Int64.min...Int64.max)
        default: throw Invalid(message: "unknown topic setting \(name)")
        }
    }

    func value(of setting: Setting) -> String { overrides[setting.name] ?? setting.defaultValue }
}

extension Substring {
    fileprivate var trimmingSpaces: Substring {
        drop { $0 == " " }.prefix { $0 != " " }
    }
}
