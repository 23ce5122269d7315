internal import Wire

/// One partition of a question for records or for an offset.
struct AskedPartition: Equatable {
    /// The partition's place in its consumer's list.
    var place: Int
    var topic: Int
    var partition: Int32
    /// Which of its partition's lives asks; answers to an earlier one are void.
    var life: UInt32
    /// For records: the first that is wanted. For an offset: its time. For the end of an epoch: that.
    var from: Int64
    /// The leader's epoch, as far as it is known to whoever asks.
    var leaderEpoch: Int32 = -1
}

/// What is asked of one broker at once, and the names of the topics in it.
struct AskedPartitions {
    var partitions: [AskedPartition]
    var topics: [String]
    /// Of those topics; nil where there is none to ask with.
    var logs: [LogIdentity?] = []

    var allHaveIDs: Bool { partitions.allSatisfy { $0.topic < logs.count && logs[$0.topic] != nil } }

    /// Writes them topic by topic, each run of one topic behind its name or id.
    func write(
        to frame: inout RequestFrame, byID: Bool = false, _ each: (inout RequestFrame, AskedPartition) -> Void
    ) {
        let runs = partitions.indices.filter { $0 == 0 || partitions[$0].topic != partitions[$0 - 1].topic }
        frame.count(runs.count)
        for (number, start) in runs.enumerated() {
            let end = number + 1 < runs.count ? runs[number + 1] : partitions.count
            let topic = partitions[start].topic
            if byID, let log = logs[topic] { frame.uuid(log.topicID) } else { frame.string(topics[topic]) }
            frame.count(end - start)
            for partition in partitions[start..<end] {
                each(&frame, partition)
                frame.noTags()
            }
            frame.noTags()
        }
    }

    /// How an answer names a topic.
    fileprivate enum TopicName {
        case text(Range<Int>)
        case id(UUID)
    }

    private func isTopic(_ topic: Int, _ name: TopicName, _ reader: borrowing AnswerReader) -> Bool {
        switch name {
        case .text(let range): reader.isText(range, topics[topic])
        case .id(let id): topic < logs.count && logs[topic]?.topicID == id
        }
    }

    /// Which of them an answer is about. Brokers answer mostly in the order of the question: `next` is where to look first.
    fileprivate func find(
        _ reader: borrowing AnswerReader, _ topic: TopicName, _ partition: Int32, _ next: inout Int
    ) -> AskedPartition? {
        for offset in 0..<partitions.count {
            let index = next + offset < partitions.count ? next + offset : next + offset - partitions.count
            let asked = partitions[index]
            guard asked.partition == partition, isTopic(asked.topic, topic, reader) else { continue }
            next = index + 1 < partitions.count ? index + 1 : 0
            return asked
        }
        return nil
    }
}

/// A transaction that was given up: records of this producer from here on to its marker are not to be seen.
struct AbortedTransaction: Equatable {
    var producerID: Int64
    var firstOffset: Int64
}

/// What a broker has of one partition.
struct FetchedPartition: Equatable {
    var asked: AskedPartition
    var error: Int16
    /// Nothing from here on is to be seen yet.
    var end: Int64
    var aborted: [AbortedTransaction]
    /// Where in the answer its batches lie.
    var records: Range<Int>
}

/// An error of the answer as a whole leaves every partition out.
struct FetchAnswer: Equatable {
    var partitions: [FetchedPartition] = []

    init(_ reader: inout AnswerReader, _ question: AskedPartitions, version: Int16) throws(AnswerReader.Malformed) {
        _ = try reader.int32()
        _ = try reader.int16()
        _ = try reader.int32()
        var next = 0
        for _ in 0..<(try reader.count()) {
            let topic: AskedPartitions.TopicName =
                version >= 13 ? .id(try reader.uuid()) : .text(try reader.skipString())
            for _ in 0..<(try reader.count()) {
                let partition = try reader.int32()
                let error = try reader.int16()
                _ = try reader.int64()
                // The last stable offset: what is before it is decided, which is what readers of the committed see.
                let end = try reader.int64()
                _ = try reader.int64()
                var aborted: [AbortedTransaction] = []
                for _ in 0..<(try reader.count()) {
                    aborted.append(
                        AbortedTransaction(producerID: try reader.int64(), firstOffset: try reader.int64()))
                    try reader.skipTags()
                }
                // A replica that would rather be asked; nobody asked for one.
                if version >= 11 { _ = try reader.int32() }
                let records = try reader.skipBytes()
                try reader.skipTags()
                guard let asked = question.find(reader, topic, partition, &next) else { continue }
                partitions.append(
                    FetchedPartition(asked: asked, error: error, end: end, aborted: aborted, records: records))
            }
            try reader.skipTags()
        }
    }
}

/// An offset, and the leader's epoch that it is of: -1 when the broker does not tell.
struct OffsetAnswer: Equatable {
    var asked: AskedPartition
    var error: Int16
    var offset: Int64
    var epoch: Int32 = -1

    static func read(
        _ reader: inout AnswerReader, _ question: AskedPartitions, version: Int16
    ) throws(AnswerReader.Malformed) -> [OffsetAnswer] {
        try readAll(&reader, question) { reader throws(AnswerReader.Malformed) in
            let (partition, error) = (try reader.int32(), try reader.int16())
            _ = try reader.int64()
            let offset = try reader.int64()
            return (partition, error, offset, version >= 4 ? try reader.int32() : -1)
        }
    }

    /// Where the last epoch that is not newer than what was asked for ends, and which that is.
    static func readEpochEnds(
        _ reader: inout AnswerReader, _ question: AskedPartitions
    ) throws(AnswerReader.Malformed) -> [OffsetAnswer] {
        try readAll(&reader, question) { reader throws(AnswerReader.Malformed) in
            let (error, partition, epoch) = (try reader.int16(), try reader.int32(), try reader.int32())
            return (partition, error, try reader.int64(), epoch)
        }
    }

    private static func readAll(
        _ reader: inout AnswerReader, _ question: AskedPartitions,
        _ read: (inout AnswerReader) throws(AnswerReader.Malformed) -> (
            partition: Int32, error: Int16, offset: Int64, epoch: Int32
        )
    ) throws(AnswerReader.Malformed) -> [OffsetAnswer] {
        var answers: [OffsetAnswer] = []
        var next = 0
        _ = try reader.int32()
        for _ in 0..<(try reader.count()) {
            let topic = AskedPartitions.TopicName.text(try reader.skipString())
            for _ in 0..<(try reader.count()) {
                let found = try read(&reader)
                guard let asked = question.find(reader, topic, found.partition, &next) else { continue }
                answers.append(
                    OffsetAnswer(asked: asked, error: found.error, offset: found.offset, epoch: found.epoch))
            }
        }
        return answers
    }
}
