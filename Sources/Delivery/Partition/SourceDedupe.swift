import Wire

/// Rule 3: the records of one source partition enter this delivery partition in rising order, so whatever is not above
/// the highest seen from its source has been delivered before, and is dropped.
///
/// That holds within one run of the source's offsets, which the tag behind the topic's name stands for: another tag is
/// another source. Of a topic the last six are kept: what a join had still under way from the old one may come after the
/// first of the new one, and partitions of one topic may be in different runs.
public struct SourceDedupe: Equatable, Sendable {
    /// The few topics that deliveries come from, each with its tag, as they turn up.
    private var topics: [[UInt8]] = []
    /// The highest offset seen, by topic and partition; -1 for none.
    private var highest: [[Int64]] = []

    /// No honest source has more partitions; a header that says so is not one of ours.
    static let partitionsMax = 1 << 16
    static let topicsMax = 32
    private static let runsMax = 6

    public init() {}

    /// Whether the record that came from here is new. What has no source, or none of the known form, always is.
    public mutating func admit(_ source: Span<UInt8>) -> Bool {
        guard let (topicEnd, partition, offset) = Self.parse(source) else { return true }
        let name = source.extracting(0..<topicEnd)
        guard let topic = number(of: name) else { return true }
        if partition >= highest[topic].count {
            highest[topic] += [Int64](repeating: -1, count: partition + 1 - highest[topic].count)
        }
        guard offset > highest[topic][partition] else { return false }
        highest[topic][partition] = offset
        return true
    }

    /// Takes over what another has seen.
    public mutating func merge(_ other: SourceDedupe) {
        for (index, name) in other.topics.enumerated() {
            guard let topic = successor(of: name) ?? number(of: name.span) else { continue }
            let theirs = other.highest[index]
            if theirs.count > highest[topic].count {
                highest[topic] += [Int64](repeating: -1, count: theirs.count - highest[topic].count)
            }
            for partition in theirs.indices {
                highest[topic][partition] = max(highest[topic][partition], theirs[partition])
            }
        }
    }

    private mutating func number(of name: Span<UInt8>) -> Int? {
        for (index, known) in topics.enumerated() where known.span.elementsEqual(name) { return index }
        return add([UInt8](copying: name))
    }

    private mutating func add(_ name: [UInt8]) -> Int? {
        let topic = Self.topic(of: name)
        if topic.count < name.count, let untagged = topics.firstIndex(of: Array(topic)) {
            // Written before sources had tags, and of the log that there is.
            topics[untagged] = name
            return untagged
        }
        let runs = topics.indices.filter { Self.topic(of: topics[$0]) == topic }
        if runs.count >= Self.runsMax {
            topics.remove(at: runs[0])
            highest.remove(at: runs[0])
        }
        guard topics.count < Self.topicsMax else { return nil }
        topics.append(name)
        highest.append([])
        return topics.count - 1
    }

    /// What was kept before sources had tags belongs to the first tag that has been seen.
    private func successor(of name: [UInt8]) -> Int? {
        guard Self.topic(of: name).count == name.count, !topics.contains(name) else { return nil }
        return topics.firstIndex { Self.topic(of: $0) == name[...] }
    }

    /// The name without its tag.
    private static func topic(of name: [UInt8]) -> ArraySlice<UInt8> {
        name.prefix { $0 != UInt8(ascii: "@") }
    }

    /// `topic@tag/partition/offset`, from the end: a topic's name cannot hold a slash.
    private static func parse(_ source: Span<UInt8>) -> (topicEnd: Int, partition: Int, offset: Int64)? {
        var index = source.count
        guard let offset = number(source, endingAt: &index), index > 0, source[index - 1] == 0x2f else { return nil }
        index -= 1
        guard let partition = number(source, endingAt: &index), index > 1, source[index - 1] == 0x2f,
            partition < partitionsMax
        else { return nil }
        return (index - 1, Int(partition), offset)
    }

    private static func number(_ text: Span<UInt8>, endingAt index: inout Int) -> Int64? {
        let end = index
        while index > 0, text[index - 1] &- 0x30 < 10 { index -= 1 }
        guard end - index > 0, end - index <= 18 else { return nil }
        var value: Int64 = 0
        for place in index..<end { value = value * 10 + Int64(text[place] &- 0x30) }
        return value
    }
}

/// As text, for the metadata of a committed offset: `topic@tag=partition:offset,…;…`.
extension SourceDedupe {
    public var text: String {
        zip(topics, highest).map { name, offsets in
            let list = offsets.enumerated().filter { $0.element >= 0 }.map { "\($0.offset):\($0.element)" }
            return String(decoding: name, as: UTF8.self) + "=" + list.joined(separator: ",")
        }.joined(separator: ";")
    }

    public init?(text: some StringProtocol) {
        self.init()
        for part in text.split(separator: ";") {
            let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard sides.count == 2, !sides[0].isEmpty, let topic = number(of: Array(sides[0].utf8).span) else {
                return nil
            }
            for entry in sides[1].split(separator: ",") {
                let pair = entry.split(separator: ":")
                guard pair.count == 2, let partition = Int(pair[0]), let offset = Int64(pair[1]), partition >= 0,
                    partition < Self.partitionsMax
                else { return nil }
                if partition >= highest[topic].count {
                    highest[topic] += [Int64](repeating: -1, count: partition + 1 - highest[topic].count)
                }
                highest[topic][partition] = offset
            }
        }
    }
}
