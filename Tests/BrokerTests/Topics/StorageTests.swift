import Foundation
import Runtime
import System
import TestSupport
import Testing
import Wire

@testable import Broker

/// The data directory when something goes wrong with it.
@Suite struct StorageTests {
    private let root = NSTemporaryDirectory() + TestKafka.unique("fanout-storage")

    private func open() throws -> Storage {
        try Storage(BrokerConfiguration(dataDirectory: root), log: .none, nowMs: 0)
    }

    /// Nothing can be renamed over a directory: what a full disk does to the catalog, also for root.
    private func withoutCatalog(_ body: () throws -> Void) throws {
        let path = root + "/catalog"
        try File.rename(path, to: path + ".kept")
        try Directory.create(path)
        try body()
        try FileManager.default.removeItem(atPath: path)
        try File.rename(path + ".kept", to: path)
    }

    @Test func `partitions that could not be written down are not there, so nothing is acknowledged in them`() throws {
        defer { try? FileManager.default.removeItem(atPath: root) }
        let storage = try open()
        try storage.create([("t", 2, TopicConfig())], nowMs: 0)
        let topic = try #require(storage.topics["t"])
        try withoutCatalog {
            #expect(throws: BrokerError.self) { try storage.addPartitions(topic, upTo: 5) }
        }
        #expect(topic.logs.count == 2)
        #expect(topic.entry.partitions == 2)
        try storage.addPartitions(topic, upTo: 3)
        #expect(topic.logs.count == 3)
    }

    @Test func `of topics that are made together and fail, none is there`() throws {
        defer { try? FileManager.default.removeItem(atPath: root) }
        let storage = try open()
        // A file stands where the second topic's directory shall be.
        try Data().write(to: URL(filePath: "\(root)/topics/2-b"))
        #expect(throws: BrokerError.self) {
            try storage.create([("a", 1, TopicConfig()), ("b", 1, TopicConfig())], nowMs: 0)
        }
        #expect(storage.topics.isEmpty)
        #expect(storage.topicsByID.isEmpty)
    }

    @Test func `where the journal has a hole the log ends, and other logs do not`() throws {
        defer { try? FileManager.default.removeItem(atPath: root) }
        do {
            let storage = try open()
            try storage.create([("t", 2, TopicConfig())], nowMs: 0)
        }
        var group: [UInt8] = []
        for offset in 0..<3 as Range<Int64> {
            for partition in 0..<2 as Range<Int32> {
                var batch = Batches.placed(Batches.batch(values: ["value \(offset)"]), at: offset)
                // The entry's checksum covers the batch's place and size; the rest has its own.
                if offset == 1, partition == 0 { batch[batch.count - 1] ^= 0xff }
                Journal.appendHeader(.batch, topic: 1, partition: partition, length: batch.count, to: &group)
                group += batch
            }
        }
        let header = Journal.fileHeader(generation: 1)
        _ = Journal.seal(&group, chain: header.chain)
        try File(root + "/journal/1.journal", .write, create: .truncate).write(header.bytes + group, at: 0)
        let topic = try #require(try open().topics["t"])
        #expect(topic.logs.map(\.endOffset) == [1, 3])
        #expect(try topic.logs[0].readAll().map(\.value) == ["value 0"])
    }
}
