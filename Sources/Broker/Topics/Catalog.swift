internal import System
internal import Wire

/// Which topics there are: the small part of the broker's state that is not a log, kept in one file that is replaced as
/// a whole whenever a topic is made, changed or deleted.
///
///     magic "FNTCAT2\n" · checksum of the rest · cluster id · next topic number · int64 of no use now · last epoch · topics
///
/// A topic's *number* is never used twice. Its files and its journal entries carry the number, so nothing of a deleted
/// topic can come back to life in one of the same name.
struct Catalog: Equatable {
    struct Entry: Equatable {
        var number: UInt32
        var name: String
        var id: TopicID
        var partitions: Int32
        var config: TopicConfig
        var createdMs: Int64
    }

    var clusterID: TopicID
    var nextTopic: UInt32 = 1
    /// The leader's epoch that was given last.
    private(set) var lastEpoch: Int32 = 0
    var topics: [Entry] = []

    private static let magic: [UInt8] = Array("FNTCAT2\n".utf8)
    /// Before there were leaders' epochs.
    private static let oldMagic: [UInt8] = Array("FNTCAT1\n".utf8)

    /// The leader's epoch of a broker that starts now. It is taken from the clock, in quarters of a second since 2026 (for
    /// 17 years), so that it is larger than those given since this catalog was copied, should it be put back one day; and it
    /// grows, whatever the clock does. Nothing is written in it before its quarter has passed (`epochPassesInMs`): so no two
    /// starts share one, also where one does not know of the other.
    mutating func nextEpoch(nowMs: Int64) -> Int32 {
        lastEpoch = max(lastEpoch &+ 1, Int32(clamping: (nowMs - Self.epochsBeginMs) / Self.epochMs))
        return lastEpoch
    }

    static func epochPassesInMs(nowMs: Int64) -> Int64 { epochMs - nowMs % epochMs }

    private static let epochMs: Int64 = 250
    private static let epochsBeginMs: Int64 = 1_767_225_600_000

    func encoded() -> [UInt8] {
        var body: [UInt8] = []
        body.appendBigEndian(clusterID.high)
        body.appendBigEndian(clusterID.low)
        body.appendBigEndian(nextTopic)
        body.appendBigEndian(Int64(0))
        body.appendBigEndian(lastEpoch)
        body.appendBigEndian(UInt32(topics.count))
        for topic in topics {
            body.appendBigEndian(topic.number)
            body.appendText(topic.name)
            body.appendBigEndian(topic.id.high)
            body.appendBigEndian(topic.id.low)
            body.appendBigEndian(topic.partitions)
            body.appendBigEndian(topic.createdMs)
            body.appendBigEndian(UInt32(topic.config.overrides.count))
            for (name, value) in topic.config.overrides.sorted(by: { $0.key < $1.key }) {
                body.appendText(name)
                body.appendText(value)
            }
        }
        var file = Self.magic
        file.appendBigEndian(CRC32C.checksum(body.span))
        return file + body
    }

    init(clusterID: TopicID) { self.clusterID = clusterID }

    init(decoding file: [UInt8]) throws(BrokerError) {
        let isOld = file.starts(with: Self.oldMagic)
        guard file.count >= 12, isOld || file.starts(with: Self.magic) else {
            throw BrokerError(.corrupt, "the catalog is not a Fanout broker's")
        }
        guard CRC32C.checksum(file.span.extracting(12..<file.count)) == file.span.bigEndian(at: 8) else {
            throw BrokerError(.corrupt, "the catalog's checksum is wrong")
        }
        var reader = RequestReader(file.span.extracting(12..<file.count))
        clusterID = try reader.topicID()
        nextTopic = UInt32(bitPattern: try reader.int32())
        _ = try reader.int64()
        if !isOld { lastEpoch = try reader.int32() }
        topics = try reader.array { reader throws(BrokerError) in
            let number = UInt32(bitPattern: try reader.int32())
            let name = try reader.string()
            let id = try reader.topicID()
            let partitions = try reader.int32()
            let createdMs = try reader.int64()
            let pairs = try reader.array { reader throws(BrokerError) in (try reader.string(), try reader.string()) }
            do throws(TopicConfig.Invalid) {
                let config = try TopicConfig(overrides: Dictionary(pairs) { _, last in last })
                return Entry(
                    number: number, name: name, id: id, partitions: partitions, config: config, createdMs: createdMs)
            } catch {
                throw BrokerError(.corrupt, "the catalog's topic \(name): \(error.message)")
            }
        }
        try reader.finish()
    }

    /// Kafka's rule for topic names; it also makes every name safe in a path.
    static func isLegal(topic name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= 249 && name != "." && name != ".."
            && name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}

extension [UInt8] {
    /// A string with a 16-bit length, as the protocol's older form has it. What is kept comes from requests, whose reader
    /// takes none that is longer.
    mutating func appendText(_ text: String) {
        appendBigEndian(Int16(text.utf8.count))
        append(contentsOf: text.utf8)
    }
}
