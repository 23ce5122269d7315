import Foundation
import System
import TestSupport
import Testing
import Wire

@testable import KafkaClient

@Suite struct IncomingRecordsTests {
    private func read(
        _ batches: [EncodedBatch], from: Int64 = 0, aborted: [AbortedTransaction] = []
    ) -> (offsets: [Int64], values: [String], breaks: Int, last: Int64) {
        let encoded = batches.flatMap(\.bytes)
        let bytes = AnswerBytes(copying: encoded.span)
        var records = IncomingRecords(bytes, 0..<bytes.count, from: from, aborted: aborted)
        var (offsets, values, breaks) = ([Int64](), [String](), 0)
        while true {
            switch records.next() {
            case .record(let found):
                offsets.append(found.offset)
                guard let value = found.record.value else { continue }
                let content = [UInt8](copying: records.content.span)
                let start = records.contentStart
                values.append(
                    String(decoding: content[start + value.lowerBound..<start + value.upperBound], as: UTF8.self))
            case .broken: breaks += 1
            case .end: return (offsets, values, breaks, records.lastOffset)
            }
        }
    }

    @Test(arguments: Codec.allCases)
    func `records of batches in any codec are read, from where they are wanted on`(_ codec: Codec) {
        var batches = [
            EncodedBatch(base: 5, last: 9, offsets: [5, 6, 7, 9]), EncodedBatch(base: 10, last: 12, offsets: []),
            EncodedBatch(base: 13, last: 15, offsets: [14]),
        ]
        for index in batches.indices { batches[index].codec = codec }
        let read = read(batches, from: 6)
        #expect(read.offsets == [6, 7, 9, 14])
        #expect(read.values == ["6", "7", "9", "14"])
        #expect(read.last == 15, "what compaction has taken is behind us, too")
        #expect(read.breaks == 0)
    }

    @Test func `of transactions only what was committed is seen, and no marker`() {
        func transactional(_ offsets: ClosedRange<Int64>, _ producer: Int64) -> EncodedBatch {
            var batch = EncodedBatch(base: offsets.lowerBound, last: offsets.upperBound, offsets: Array(offsets))
            (batch.attributes, batch.producerID) = (0x10, producer)
            return batch
        }
        var plain = EncodedBatch(base: 6, last: 7, offsets: [6, 7])
        plain.producerID = 1
        let read = read(
            [
                transactional(0...1, 1), transactional(2...3, 2), .marker(4, producerID: 1, isCommit: false),
                .marker(5, producerID: 2, isCommit: true), plain, transactional(8...9, 1),
                .marker(10, producerID: 1, isCommit: true), transactional(11...11, 2),
                .marker(12, producerID: 2, isCommit: false),
            ],
            aborted: [
                AbortedTransaction(producerID: 2, firstOffset: 11), AbortedTransaction(producerID: 1, firstOffset: 0),
            ])
        #expect(read.offsets == [2, 3, 6, 7, 8, 9])
        #expect(read.last == 12)
    }

    @Test func `a timestamp is the record's own, or the broker's for all of the batch`() throws {
        var batch = EncodedBatch(base: 0, last: 1, offsets: [0, 1])
        for (attributes, expected) in [(0, [1000, 1001]), (8, [2000, 2000])] as [(UInt16, [Int64])] {
            batch.attributes = attributes
            let bytes = AnswerBytes(copying: batch.bytes.span)
            var records = IncomingRecords(bytes, 0..<bytes.count, from: 0, aborted: [])
            for timestamp in expected {
                guard case .record(let found) = records.next() else {
                    Issue.record("there are two records")
                    return
                }
                #expect(found.timestampMs == timestamp)
                #expect(found.hasLogAppendTime == (attributes == 8))
            }
        }
    }

    @Test func `a batch that is not what it says breaks off, and the next one is read`() {
        var broken = EncodedBatch(base: 0, last: 2, offsets: [0, 1, 7])
        let next = EncodedBatch(base: 3, last: 4, offsets: [3, 4])
        #expect(read([broken, next]).offsets == [0, 1, 3, 4])
        #expect(read([broken, next]).breaks == 1)
        broken = EncodedBatch(base: 0, last: 2, offsets: [0, 1, 2])
        broken.attributes = 4
        #expect(read([broken, next]).offsets == [3, 4], "not what zstd writes")
        broken.attributes = 7
        #expect(read([broken, next]).offsets == [3, 4], "no such codec")
        // A record that comes again, by its offset, is one.
        #expect(read([EncodedBatch(base: 0, last: 2, offsets: [0, 0, 2, 1])]).offsets == [0, 2])
    }

    @Test func `bytes of any kind are refused or read, in pieces as in one`() throws {
        var random = SeededGenerator.announced(#function)
        let question = AskedPartitions(
            partitions: (0..<3).map { AskedPartition(place: Int($0), topic: 0, partition: $0, life: 1, from: 0) },
            topics: ["t"])
        for round in 0..<4000 {
            var answer = Self.answer(&random)
            for _ in 0..<Int.random(in: 0..<5, using: &random) {
                answer[Int.random(in: answer.indices, using: &random)] = .random(in: 0...255, using: &random)
            }
            if round % 3 == 0 { answer.removeLast(Int.random(in: 0..<answer.count, using: &random)) }
            let bytes = AnswerBytes(copying: answer.span)
            var reader = AnswerReader(bytes.span)
            guard let fetched = try? FetchAnswer(&reader, question, version: 10) else { continue }
            for partition in fetched.partitions {
                var state = IncomingPartition(reset: .earliest, bytesMax: 1000)
                state.assign(.offset(0))
                _ = state.learned(leader: 1, nowNs: 1)
                state.asked()
                guard
                    let records = state.answered(
                        bytes.span, partition.records, end: partition.end, life: state.life, hadRoom: true, nowNs: 1)
                else { continue }
                drain(IncomingRecords(bytes, records.range, from: records.from, aborted: partition.aborted))
                // As if somebody had taken the trouble to make the checksums right.
                drain(IncomingRecords(bytes, partition.records, from: 0, aborted: partition.aborted))
            }
            var other = AnswerReader(bytes.span)
            _ = try? OffsetAnswer.read(&other, question, version: 2)
        }
    }

    private func drain(_ arrived: IncomingRecords) {
        var records = arrived
        var last: Int64 = -1
        while true {
            switch records.next() {
            case .record(let found):
                #expect(found.offset > last)
                last = found.offset
                let ends = [found.record.key, found.record.value, found.record.headers].map { $0?.upperBound ?? 0 }
                let end = records.contentStart + (ends.max() ?? 0)
                #expect(end <= records.content.count)
            case .broken: continue
            case .end: return
            }
        }
    }

    /// An answer to a question for three partitions, without the correlation id.
    private static func answer(_ random: inout SeededGenerator) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(0 as Int32)
        bytes.appendBigEndian(0 as Int16)
        bytes.appendBigEndian(0 as Int32)
        bytes.appendBigEndian(1 as Int32)
        bytes.appendBigEndian(1 as Int16)
        bytes += Array("t".utf8)
        bytes.appendBigEndian(3 as Int32)
        for partition in 0..<3 as Range<Int32> {
            bytes.appendBigEndian(partition)
            bytes.appendBigEndian(0 as Int16)
            for offset in [90, 90, 0] as [Int64] { bytes.appendBigEndian(offset) }
            bytes.appendBigEndian(1 as Int32)
            for number in [7, 0] as [Int64] { bytes.appendBigEndian(number) }
            var batches: [UInt8] = []
            for base in 0..<Int64.random(in: 0..<3, using: &random) {
                var batch = EncodedBatch(
                    base: base * 3, last: base * 3 + 2, offsets: (base * 3...base * 3 + 2).map { $0 })
                batch.codec = Codec.allCases[Int.random(in: 0..<5, using: &random)]
                batches += batch.bytes
            }
            bytes.appendBigEndian(Int32(batches.count))
            bytes += batches
        }
        return bytes
    }

    /// As Apache Kafka's own client writes them.
    private static func golden(_ name: String, _ version: Int16) throws -> [[UInt8]] {
        let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        return try GoldenExchange.all(in: tests.appending(path: "BrokerTests/Golden/requests.txt")).filter {
            $0.name == name && $0.version == version
        }.map(\.answer)
    }

    private static let byName = AskedPartitions(
        partitions: [AskedPartition(place: 7, topic: 0, partition: 0, life: 1, from: 0)], topics: ["t"],
        logs: [LogIdentity(topicID: Wire.UUID(high: 3, low: 4))])

    @Test func `answers with topic ids and varints are read as Apache Kafka writes them`() throws {
        for bytes in try Self.golden("Metadata", 12) {
            let framed = [0] + bytes
            var reader = AnswerReader(framed.span)
            try reader.begin(.metadata, version: 12)
            let answer = try MetadataAnswer(&reader, version: 12)
            #expect(answer.brokers == [.init(id: 1, host: "localhost", port: 9092)])
            #expect(answer.topics.first?.name == "t")
            #expect(answer.topics.first?.log == Self.byName.logs[0])
            #expect(
                answer.topics.first?.partitions == [
                    .init(error: 0, index: 0, leader: 1, leaderEpoch: 0),
                    .init(error: 0, index: 1, leader: 1, leaderEpoch: 0),
                ])
        }
        for (version, form) in [(12, 12), (17, 13)] as [(Int16, Int16)] {
            let bytes = [0] + (try #require(try Self.golden("Fetch", version).first))
            var reader = AnswerReader(bytes.span)
            try reader.begin(.fetch, version: form)
            let answer = try FetchAnswer(&reader, Self.byName, version: form)
            let partition = try #require(answer.partitions.first)
            #expect(partition.asked.place == 7 && partition.error == 0 && partition.end == 4)
            #expect(partition.records.count == 82)
        }
    }

    @Test func `hostile answers with topic ids and varints are refused or read, and never more than that`() throws {
        var random = SeededGenerator.announced(#function)
        let metadata = try Self.golden("Metadata", 12)
        let fetched = try Self.golden("Fetch", 17)
        for _ in 0..<10_000 {
            let one = Mutation.of([0] + metadata[Int.random(in: metadata.indices, using: &random)], &random)
            var first = AnswerReader(one.span)
            if (try? first.begin(.metadata, version: 12)) != nil { _ = try? MetadataAnswer(&first, version: 12) }
            let other = Mutation.of([0] + fetched[0], &random)
            var second = AnswerReader(other.span)
            if (try? second.begin(.fetch, version: 13)) != nil,
                let answer = try? FetchAnswer(&second, Self.byName, version: 13)
            {
                #expect(answer.partitions.allSatisfy { $0.records.upperBound <= other.count })
            }
            var third = AnswerReader(other.span)
            _ = try? OffsetAnswer.readEpochEnds(&third, Self.byName)
        }
    }

    @Test func `answers are put together from pieces of any size`() throws {
        var random = SeededGenerator.announced(#function)
        let answers = (0..<50).map { _ in
            (0..<Int.random(in: 4..<300, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
        }
        var stream: [UInt8] = []
        for answer in answers {
            stream.appendBigEndian(UInt32(answer.count))
            stream += answer
        }
        for _ in 0..<50 {
            var inbox = AnswerInbox(bytesMax: 1000)
            var (found, start) = ([[UInt8]](), 0)
            while start < stream.count {
                let end = min(stream.count, start + Int.random(in: 1..<200, using: &random))
                let piece = Array(stream[start..<end])
                var position = 0
                while let answer = try inbox.next(piece.span, &position) { found.append([UInt8](copying: answer.span)) }
                start = end
            }
            #expect(found == answers)
        }
        for size in [0, 3, 1001, 0xffff_ffff] as [UInt32] {
            var bytes: [UInt8] = []
            bytes.appendBigEndian(size)
            var inbox = AnswerInbox(bytesMax: 1000)
            #expect(throws: AnswerReader.Malformed.self) {
                var position = 0
                _ = try inbox.next(bytes.span, &position)
            }
        }
    }
}
