import Foundation
import System
import TestSupport
import Testing

@testable import Broker

@Suite struct PartitionLogTests {
    @Test func `a reader gets every record once and in order, whatever the sizes of segments and fetches`() throws {
        var random = SeededGenerator.announced("PartitionLogTests.reading")
        for round in 0..<20 {
            let directory = LogDirectory()
            let log = try directory.makeLog(["segment.bytes": "\([1024, 5000, 1 << 20][round % 3])"])
            var expected: [String] = []
            for number in 0..<Int.random(in: 1...200, using: &random) {
                let values = (0..<Int.random(in: 1...4, using: &random)).map { index in
                    "\(number)/\(index)" + String(repeating: "x", count: Int.random(in: 0...300, using: &random))
                }
                try log.add(Batches.batch(values: values))
                expected += values
            }
            let maxBytes = Int.random(in: 1...4000, using: &random)
            #expect(try log.readAll(maxBytes: maxBytes).map(\.value) == expected)
            for _ in 0..<20 {
                let from = Int64.random(in: 0...Int64(expected.count), using: &random)
                let found = try log.readAll(from: from, maxBytes: maxBytes)
                #expect(found.map(\.offset) == Array(from..<Int64(expected.count)))
            }
            let (again, report) = try directory.reopen(["segment.bytes": "5000"])
            #expect(report.truncatedBytes == 0)
            #expect(try again.readAll().map(\.value) == expected)
        }
    }

    @Test func `nothing is read beyond what is committed`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog(["segment.bytes": "1024"])
        for number in 0..<30 { try log.add(Batches.batch(values: ["\(number)"]), commits: number < 17) }
        #expect(log.highWatermark == 17)
        #expect(log.endOffset == 30)
        #expect(try log.readAll().count == 17)
        try log.truncateToCommitted()
        #expect(log.endOffset == 17)
        try log.add(Batches.batch(values: ["other"]))
        #expect(try log.readAll().last?.value == "other")
        #expect(try directory.reopen().log.readAll().map(\.value) == (0..<17).map { "\($0)" } + ["other"])
    }

    @Test func `a torn tail is truncated at the first bad batch, wherever it was torn`() throws {
        let directory = LogDirectory()
        var ends: [Int] = [0]
        do {
            let log = try directory.makeLog()
            for number in 0..<4 {
                try log.add(Batches.batch(values: (0...number).map { "value \($0)" }))
                ends.append(log.end.position)
            }
        }
        let path = try #require(FileManager.default.enumerator(atPath: directory.path)?.nextObject() as? String)
        let file = "\(directory.path)/\(path)"
        let whole = try #require(FileManager.default.contents(atPath: file))
        for count in 0...whole.count {
            for remains in [Data(), Data(repeating: 0, count: 200), Data(repeating: 0xa5, count: 61)] {
                let torn = whole.prefix(count) + remains
                try torn.write(to: URL(filePath: file))
                // A remainder may happen to complete the batch that it follows.
                let batches = ends.count { $0 <= torn.count && torn.prefix($0) == whole.prefix($0) } - 1
                let (log, report) = try directory.reopen()
                #expect(log.end.position == ends[batches])
                #expect(log.endOffset == Int64((0..<batches).reduce(0) { $0 + $1 + 1 }))
                #expect(report.truncatedBytes == count + remains.count - ends[batches])
                #expect((report.reason == nil) == (report.truncatedBytes == 0))
                #expect(try directory.segments().map(\.size) == [ends[batches]])
                directory.files.closeAll(log)
            }
        }
    }

    @Test func `a damaged batch in the middle ends the log there, also when later segments are whole`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog(["segment.bytes": "1024"])
        for number in 0..<60 { try log.add(Batches.batch(values: ["value \(number)"])) }
        log.closeFiles()
        let second = try #require(try directory.segments().dropFirst().first)
        let segment = Segment(directory: directory.path, partition: 0, baseOffset: second.baseOffset)
        try File(segment.logPath, .readWrite).write([0xff], at: 100)
        let (again, report) = try directory.reopen(["segment.bytes": "1024"])
        #expect(again.endOffset == second.baseOffset + 1)
        #expect(report.reason == "badChecksum")
        #expect(try directory.segments().count == 2)
        #expect(try again.readAll().count == Int(second.baseOffset) + 1)
    }

    @Test func `what a checkpoint vouches for is not read again, and its producers are known`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog()
        let first = Batches.batch([(key: nil, value: "1")], producer: 5, sequence: 0)
        let second = Batches.batch([(key: nil, value: "2")], producer: 5, sequence: 1)
        try log.add(first)
        let known = log.checkpointed
        try log.add(second)
        log.closeFiles()
        let (again, report) = try directory.reopen(known: known)
        #expect(report.scannedBytes == second.count)
        #expect(again.producers.producers == log.producers.producers)
        // A checkpoint that is newer than the files is not believed.
        var ahead = known
        ahead.verified?.position = 1 << 20
        #expect(try directory.reopen(known: ahead).report.scannedBytes == first.count + second.count)
    }

    @Test func `a time is found to its batch, also in closed segments and after a restart`() throws {
        let directory = LogDirectory()
        let settings = ["segment.bytes": "4000"]
        let log = try directory.makeLog(settings)
        // Times that run back now and then: the first batch at or after a time counts.
        let times = (Int64(0)..<300).map { (number: Int64) -> Int64 in number % 7 == 0 ? number * 10 + 25 : number * 10
        }
        for time in times { try log.add(Batches.batch(values: ["v"], timestamp: time)) }
        for log in [log, try directory.reopen(settings).log] {
            for time in stride(from: Int64(0), through: 3100, by: 13) {
                let expected = times.firstIndex { $0 >= time }.map(Int64.init)
                #expect(try log.search(notBefore: time) { batch, _ in batch.baseOffset } == expected)
            }
        }
    }

    @Test func `retention deletes old segments and never what is newest`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog(["segment.bytes": "1024", "retention.ms": "1000"])
        for number in 0..<100 { try log.add(Batches.batch(values: ["v"], timestamp: Int64(number) * 10)) }
        let before = log.segments.count
        #expect(try log.enforceRetention(nowMs: 1500) > 0)
        #expect(log.segments.count < before)
        // Everything newer than 500 is kept, and not a whole segment more.
        let first = try #require(log.segments.first)
        #expect(first.maxTimestamp >= 500)
        #expect(log.startOffset == first.baseOffset)
        #expect(try log.readAll(from: log.startOffset).count == Int(log.endOffset - log.startOffset))
        #expect(try log.enforceRetention(nowMs: 1 << 40) > 0)
        #expect(log.startOffset == 100)
        #expect(log.endOffset == 100)
        let again = try directory.reopen().log
        #expect(again.startOffset == 100)
        #expect(again.endOffset == 100)
        #expect(try again.add(Batches.batch(values: ["next"])) == 100)
    }

    @Test func `a segment without its index is as old as its records, not older`() throws {
        let directory = LogDirectory()
        let settings = ["segment.bytes": "1024", "retention.ms": "1000"]
        let log = try directory.makeLog(settings)
        for number in 0..<100 { try log.add(Batches.batch(values: ["v"], timestamp: 10_000 + Int64(number))) }
        let known = log.checkpointed
        log.closeFiles()
        for (index, name) in try Directory.list(directory.path).filter({ $0.hasSuffix(".index") }).enumerated() {
            // Missing, torn, or extended and never written.
            let path = "\(directory.path)/\(name)"
            switch index % 3 {
            case 0: try File.remove(path)
            case 1: try File(path, .write).truncate(to: 7)
            default: try File(path, .write, create: .truncate).write([UInt8](repeating: 0, count: 32), at: 0)
            }
        }
        let again = try directory.reopen(settings, known: known).log
        #expect(try again.enforceRetention(nowMs: 10_500) == 0)
        #expect(try again.readAll().count == 100)
        #expect(try again.search(notBefore: 10_050) { batch, _ in batch.baseOffset } == 50)
        #expect(try again.enforceRetention(nowMs: 11_060) > 0)
        #expect((40...60).contains(again.startOffset))
        // Once looked up, it is written down again.
        #expect(again.segments.first.map { File.exists($0.indexPath) } == true)
    }

    @Test func `records that say no time are as old as their file`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog(["segment.bytes": "1024", "retention.ms": "60000"])
        for _ in 0..<50 { try log.add(Batches.batch(values: ["v"], timestamp: -1)) }
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        #expect(try log.enforceRetention(nowMs: now) == 0)
        #expect(try log.enforceRetention(nowMs: now + 120_000) > 0)
    }

    @Test func `retention by size keeps at least the size`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog(["segment.bytes": "1024", "retention.bytes": "5000"])
        for _ in 0..<200 { try log.add(Batches.batch(values: ["v"], timestamp: 10)) }
        _ = try log.enforceRetention(nowMs: 20)
        #expect(log.sizeBytes >= 5000)
        #expect(log.sizeBytes < 5000 + 1024 + 1024)
    }

    @Test func `records can be deleted up to any offset`() throws {
        let directory = LogDirectory()
        let log = try directory.makeLog(["segment.bytes": "1024"])
        for number in 0..<50 { try log.add(Batches.batch(values: ["\(number)"])) }
        try log.moveStart(to: 23)
        #expect(log.startOffset == 23)
        #expect(try log.readAll(from: 23).first?.value == "23")
        try log.moveStart(to: 50)
        #expect(log.segments.count == 1)
        #expect(log.endOffset == 50)
        #expect(try directory.reopen(known: log.checkpointed).log.startOffset == 50)
    }

    @Test func `a missing or false index only costs time`() throws {
        let directory = LogDirectory()
        let settings = ["segment.bytes": "200000"]
        let log = try directory.makeLog(settings)
        let value = String(repeating: "x", count: 1000)
        for _ in 0..<500 { try log.add(Batches.batch(values: [value])) }
        log.closeFiles()
        var random = SeededGenerator.announced("PartitionLogTests.index")
        for name in try Directory.list(directory.path) where name.hasSuffix(".index") {
            let noise = (0..<400).map { _ in UInt8.random(in: 0...255, using: &random) }
            try File("\(directory.path)/\(name)", .write, create: .truncate).write(noise, at: 0)
        }
        let again = try directory.reopen(settings).log
        for offset in stride(from: Int64(0), to: 500, by: 7) {
            var bytes: [UInt8] = []
            _ = try again.read(from: offset, maxBytes: 1, atLeastOne: true, into: &bytes)
            #expect(try RecordBatch(verifying: bytes.span).baseOffset == offset)
            again.forgetHints()
        }
    }
}

extension OpenFiles {
    fileprivate func closeAll(_ log: PartitionLog) { log.closeFiles() }
}
