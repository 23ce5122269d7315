import Testing
import Wire

@Suite struct PartitioningTests {
    /// The values that the Java client's own tests expect of its murmur2.
    @Test(
        arguments: [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] as [(String, Int32)])
    func `murmur2 agrees with the Java client`(key: String, hash: Int32) {
        let bytes = [UInt8](key.utf8)
        let value = murmur2(bytes.span)
        #expect(value == hash)
    }

    @Test func `an id's partition is that of its text`() {
        for count in [Int32(1), 7, 16, 1000] {
            for _ in 0..<200 {
                let id = UUID.random()
                var text: [UInt8] = []
                id.appendText(to: &text)
                #expect(id.partition(count: count) == partition(forKey: text.span, count: count), "\(id)")
            }
        }
    }

    @Test func `every partition gets its share of random ids`() {
        var counts = [Int](repeating: 0, count: 16)
        for _ in 0..<16_000 { counts[Int(UUID.random().partition(count: 16))] += 1 }
        #expect(counts.allSatisfy { $0 > 800 && $0 < 1200 }, "\(counts)")
    }
}
