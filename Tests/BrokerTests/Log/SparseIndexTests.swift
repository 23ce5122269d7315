import Testing
import Wire

@testable import Broker

@Suite struct SparseIndexTests {
    private func filled(_ count: Int) -> SparseIndex {
        var index = SparseIndex(baseOffset: 1000)
        for number in 0..<count {
            index.note(
                offset: 1000 + Int64(number) * 10, position: number * SparseIndex.intervalBytes,
                maxTimestampBefore: number == 0 ? -1 : Int64(number) * 100)
        }
        return index
    }

    @Test func `batches closer than the interval are not noted`() {
        var index = SparseIndex(baseOffset: 0)
        for number in 0..<100 { index.note(offset: Int64(number), position: number * 1024, maxTimestampBefore: 0) }
        #expect(index.entries.map(\.position) == [32 << 10, 64 << 10, 96 << 10])
    }

    @Test func `the floor is the last entry that is not after what is sought`() {
        let index = filled(5)
        #expect(index.floor(offset: 1000) == nil)
        #expect(index.floor(offset: 1010)?.offset == 1010)
        #expect(index.floor(offset: 1019)?.offset == 1010)
        #expect(index.floor(offset: 9999)?.offset == 1040)
        #expect(index.floor(timestamp: 100) == nil)
        #expect(index.floor(timestamp: 101)?.offset == 1010)
        #expect(index.floor(timestamp: 10_000)?.offset == 1040)
    }

    @Test func `an index comes back from its file as far as the log is good`() throws {
        var index = filled(6)
        let taken = index.takeUnstored()
        let stored = try #require(taken)
        #expect(stored.fileOffset == 0)
        #expect(index.takeUnstored() == nil)
        let all = SparseIndex(baseOffset: 1000, file: stored.bytes, size: 10 * SparseIndex.intervalBytes)
        #expect(all.entries == index.entries)
        let part = SparseIndex(baseOffset: 1000, file: stored.bytes, size: 3 * SparseIndex.intervalBytes)
        #expect(part.entries.count == 2)
        for count in 0..<stored.bytes.count {
            let torn = SparseIndex(
                baseOffset: 1000, file: Array(stored.bytes[..<count]), size: 10 * SparseIndex.intervalBytes)
            #expect(torn.entries == Array(index.entries.prefix(count / SparseIndex.entrySize)))
        }
        let zeros = SparseIndex(baseOffset: 1000, file: [UInt8](repeating: 0, count: 64), size: 1 << 30)
        #expect(zeros.entries.isEmpty)
    }
}
