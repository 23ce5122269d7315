import Foundation
import System
import TestSupport
import Testing
import Wire

@testable import Broker

@Suite struct CompactionTests {
    /// One pass over what is closed, as the broker runs it.
    @discardableResult
    private func compact(_ log: PartitionLog, nowMs: Int64) throws -> Compaction.Outcome? {
        guard let pass = log.compaction(nowMs: nowMs) else { return nil }
        let outcome = try pass.run()
        try log.adopt(outcome, of: pass, nowMs: nowMs)
        return outcome
    }

    @Test func `after any number of passes the newest of each key remains, at its offset, in order`() throws {
        var random = SeededGenerator.announced("CompactionTests.model")
        for round in 0..<30 {
            let directory = LogDirectory()
            let settings = [
                "cleanup.policy": "compact", "segment.bytes": "2048", "min.cleanable.dirty.ratio": "0",
                "delete.retention.ms": "1000",
            ]
            var log = try directory.makeLog(settings)
            var written: [(offset: Int64, key: String, value: String?)] = []
            var nowMs: Int64 = 1_000
            let codecs = Codec.allCases
            for _ in 0..<Int.random(in: 5...120, using: &random) {
                nowMs += Int64.random(in: 0...200, using: &random)
                let records = (0..<Int.random(in: 1...6, using: &random)).map { _ in
                    (
                        key: "k\(Int.random(in: 0..<12, using: &random))",
                        value: Int.random(in: 0..<4, using: &random) == 0
                            ? nil : "v\(Int.random(in: 0..<1000, using: &random))"
                    )
                }
                let codec = codecs[Int.random(in: 0..<codecs.count, using: &random)]
                let batch = try Batches.batch(records.map { ($0.key, $0.value) }, timestamp: nowMs).compressed(codec)
                let base = try log.add(batch, nowMs: nowMs)
                for (index, record) in records.enumerated() {
                    written.append((base + Int64(index), record.key, record.value))
                }
                if Int.random(in: 0..<10, using: &random) == 0 {
                    let before = try log.readAll()
                    try compact(log, nowMs: nowMs)
                    try check(log, written, before)
                }
                if Int.random(in: 0..<30, using: &random) == 0 {
                    log.closeFiles()
                    log = try directory.reopen(settings, known: log.checkpointed).log
                }
            }
            try log.roll()
            let before = try log.readAll()
            try compact(log, nowMs: nowMs)
            try check(log, written, before)
            // What is closed is clean now: each key once.
            let keys = try log.readAll().compactMap(\.key)
            #expect(Set(keys).count == keys.count, "round \(round)")
            // The files agree with what is in memory, with and without what the checkpoint knows.
            let expected = try log.readAll().map(\.offset)
            log.closeFiles()
            #expect(try directory.reopen(settings, known: log.checkpointed).log.readAll().map(\.offset) == expected)
            #expect(try directory.reopen(settings).log.readAll().map(\.offset) == expected)
        }
    }

    /// Against the model: of each key the newest value is there; nothing is there that was not before, or at another
    /// place; a key whose newest record is a tombstone has it or nothing.
    private func check(
        _ log: PartitionLog, _ written: [(offset: Int64, key: String, value: String?)],
        _ before: [(offset: Int64, key: String?, value: String?)]
    ) throws {
        let found = try log.readAll()
        #expect(found.map(\.offset) == found.map(\.offset).sorted())
        let byOffset = Dictionary(uniqueKeysWithValues: written.map { ($0.offset, $0) })
        for record in found {
            #expect(byOffset[record.offset]?.key == record.key)
            #expect(byOffset[record.offset]?.value == record.value)
        }
        #expect(Set(found.map(\.offset)).isSubset(of: Set(before.map(\.offset))))
        var model: [String: (offset: Int64, value: String?)] = [:]
        for record in written { model[record.key] = (record.offset, record.value) }
        var state: [String: (offset: Int64, value: String?)] = [:]
        for record in found { state[record.key ?? ""] = (record.offset, record.value) }
        for (key, newest) in model {
            if newest.value != nil {
                #expect(state[key]?.offset == newest.offset)
            } else {
                #expect(state[key] == nil || state[key]?.offset == newest.offset)
            }
        }
    }

    @Test func `a tombstone stays for delete.retention.ms after the pass that removed its values`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog([
            "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0", "delete.retention.ms": "1000",
        ])
        try log.add(Batches.batch([(key: "a", value: "1"), (key: "b", value: "2")]))
        try log.add(Batches.batch([(key: "a", value: nil)]))
        try log.roll()
        try compact(log, nowMs: 10_000)
        #expect(try log.readAll().map(\.offset) == [1, 2])
        #expect(try compact(log, nowMs: 10_999) == nil)
        try compact(log, nowMs: 11_000)
        #expect(try log.readAll().map(\.offset) == [1])
        #expect(log.endOffset == 3)
        #expect(try directory.reopen().log.endOffset == 3)
    }

    @Test func `a crash anywhere in the replacement leaves the old segments or the new one`() throws {
        let settings = ["cleanup.policy": "compact", "segment.bytes": "1024", "min.cleanable.dirty.ratio": "0"]
        // How many steps of the replacement happen: rename to the swap file, then one deletion a file.
        for steps in 0..<12 {
            let directory = LogDirectory()
            let log = try directory.makeLog(settings)
            for number in 0..<60 {
                try log.add(Batches.batch([(key: "k\(number % 5)", value: String(repeating: "x", count: 40))]))
            }
            try log.roll()
            let pass = try #require(log.compaction(nowMs: 0))
            var pass2 = pass
            pass2.segmentBytes = 1 << 20
            let outcome = try pass2.run()
            let product = try #require(outcome.products.first)
            log.closeFiles()
            if steps > 0 {
                let segment = Segment(directory: directory.path, partition: 0, baseOffset: product.baseOffset)
                try File.rename(product.path, to: segment.swapPath(upTo: product.nextOffset))
                for source in product.sources.prefix(steps - 1) { try File.remove(source.path) }
            }
            for name in try Directory.list(directory.path) {
                _ = try Segment.finishSwap(name, in: directory.path)
            }
            let found = try directory.reopen(settings).log.readAll()
            #expect(found.count == (steps == 0 ? 60 : 5), "after \(steps) steps")
            #expect(found.last?.offset == 59)
        }
    }
}

extension [UInt8] {
    /// The batch with its records compressed.
    fileprivate func compressed(_ codec: Codec) throws -> [UInt8] {
        let header = RecordBatch.headerSize
        var batch = Array(self[..<header]) + (try codec.compress(Array(self[header...])))
        batch.setBigEndian(Int32(batch.count - RecordBatch.lengthOverhead), at: 8)
        batch.setBigEndian(Int16(codec.rawValue), at: 21)
        Batches.seal(&batch)
        return batch
    }
}
