import Testing
import Wire

@testable import Broker

@Suite struct JournalTests {
    private func entry(_ kind: Journal.Kind, _ payload: [UInt8], partition: Int32) -> [UInt8] {
        var bytes: [UInt8] = []
        Journal.appendHeader(kind, topic: 7, partition: partition, length: payload.count, to: &bytes)
        return bytes + payload
    }

    /// A journal file of some groups of entries, and where each entry ends.
    private func file(_ groups: [[[UInt8]]], generation: UInt64 = 3) -> (bytes: [UInt8], ends: [Int]) {
        let header = Journal.fileHeader(generation: generation)
        var bytes = header.bytes
        var chain = header.chain
        var ends: [Int] = []
        for group in groups {
            var entries = group.flatMap { $0 }
            chain = Journal.seal(&entries, chain: chain)
            var end = bytes.count
            for entry in group {
                end += entry.count
                ends.append(end)
            }
            bytes += entries
        }
        return (bytes, ends)
    }

    private func replay(_ bytes: [UInt8]) -> [[UInt8]] {
        var found: [[UInt8]] = []
        Journal.replay(bytes.span) { header, payload in
            #expect(header.topic == 7)
            #expect(header.partition == Int32(found.count))
            found.append([UInt8](copying: payload))
        }
        return found
    }

    private let payloads: [[UInt8]] = [
        Batches.batch(values: ["a"]), [0, 0, 0, 0, 0, 0, 0, 9], Batches.batch(values: ["b", "c"]),
        Batches.batch(values: ["d"]),
    ]

    private var groups: [[[UInt8]]] {
        [
            [entry(.batch, payloads[0], partition: 0), entry(.start, payloads[1], partition: 1)],
            [entry(.batch, payloads[2], partition: 2)], [entry(.batch, payloads[3], partition: 3)],
        ]
    }

    @Test func `what was written is replayed, whatever follows it in a file used again`() {
        let written = file(groups).bytes
        #expect(replay(written) == payloads)
        #expect(replay(written + [UInt8](repeating: 0, count: 500)) == payloads)
        #expect(replay(written + file(groups, generation: 2).bytes) == payloads)
    }

    @Test func `a torn journal is replayed up to the last whole entry`() {
        let (bytes, ends) = file(groups)
        for count in 0...bytes.count {
            #expect(replay(Array(bytes[..<count])).count == ends.count { $0 <= count })
        }
    }

    @Test func `entries of an earlier use of the file do not follow fresh ones`() {
        // The same entries at the same places, but of generation 2: only the first two groups were overwritten.
        var bytes = file(groups, generation: 2).bytes
        let fresh = file(Array(groups.prefix(2)), generation: 3).bytes
        bytes.replaceSubrange(0..<fresh.count, with: fresh)
        #expect(replay(bytes) == Array(payloads.prefix(3)))
    }

    @Test func `the remains of a failed group do not follow the group that took its place`() {
        // Two groups of equal size: the second's remains would fit behind the first one's replacement.
        let failed = file([[entry(.batch, payloads[0], partition: 0)], [entry(.batch, payloads[3], partition: 1)]])
            .bytes
        let other = file([[entry(.batch, payloads[3], partition: 0)]]).bytes
        var bytes = failed
        bytes.replaceSubrange(0..<other.count, with: other)
        #expect(replay(bytes) == [payloads[3]])
    }
}
