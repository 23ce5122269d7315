import Testing

@testable import System

@Suite struct CRC32CTests {
    /// With the processor's instruction, if it has one, and without.
    private static let ways: [@Sendable (Span<UInt8>, UInt32) -> UInt32] = [
        { CRC32C.checksum($0, seed: $1) }, { CRC32C.portableChecksum($0, seed: $1) },
    ]

    @Test(arguments: ways.indices) func `the check value of the catalogue of checksums comes out`(_ way: Int) {
        #expect(Self.ways[way](Array("123456789".utf8).span, 0) == 0xe306_9283)
    }

    @Test(arguments: ways.indices) func `thirty-two zeros and ones have the sums that RFC 3720 gives`(_ way: Int) {
        #expect(Self.ways[way]([UInt8](repeating: 0, count: 32).span, 0) == 0x8a91_36aa)
        #expect(Self.ways[way]([UInt8](repeating: 0xff, count: 32).span, 0) == 0x62a8_ab43)
        #expect(Self.ways[way]([UInt8]().span, 7) == 7)
    }

    @Test func `a sum continued over any cut equals the sum of the whole, both ways`() {
        var random = SeededGenerator(seed: 32)
        let bytes = (0..<300).map { _ in UInt8.random(in: 0...255, using: &random) }
        let whole = CRC32C.portableChecksum(bytes.span)
        for cut in 0...bytes.count {
            for way in Self.ways {
                let first = way(bytes.span.extracting(0..<cut), 0)
                #expect(way(bytes.span.extracting(cut..<bytes.count), first) == whole)
            }
        }
    }
}
