import TestSupport
import Testing

@testable import Broker

@Suite struct CRC32CTests {
    @Test func `the check value of the catalogue of checksums comes out`() {
        #expect(CRC32C.checksum(Array("123456789".utf8).span) == 0xe306_9283)
    }

    @Test func `thirty-two zeros and ones have the sums that RFC 3720 gives`() {
        #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32).span) == 0x8a91_36aa)
        #expect(CRC32C.checksum([UInt8](repeating: 0xff, count: 32).span) == 0x62a8_ab43)
    }

    @Test func `a sum continued over any cut equals the sum of the whole`() {
        let bytes = (0..<100).map { UInt8(truncatingIfNeeded: $0 * 37) }
        let whole = CRC32C.checksum(bytes.span)
        for cut in 0...bytes.count {
            let first = CRC32C.checksum(bytes.span.extracting(0..<cut))
            #expect(CRC32C.checksum(bytes.span.extracting(cut..<bytes.count), seed: first) == whole)
        }
    }
}
