internal import CLinux

/// CRC-32C (Castagnoli), the checksum of record batches and of the broker's journal.
///
/// Most processors have an instruction for it. Elsewhere slicing by eight: eight table look-ups fold eight bytes at a time,
/// which the processor overlaps, where the plain table form waits for each byte. The tables are 8 KiB and stay in the
/// first-level cache while batches are checked.
public enum CRC32C {
    private static let hasInstruction = fanout_has_crc32c() != 0

    /// The checksum of `bytes`, continuing from an earlier `seed` (the checksum of what came before).
    public static func checksum(_ bytes: Span<UInt8>, seed: UInt32 = 0) -> UInt32 {
        guard hasInstruction else { return portableChecksum(bytes, seed: seed) }
        return unsafe bytes.withUnsafeBufferPointer { unsafe ~fanout_crc32c(~seed, $0.baseAddress, $0.count) }
    }

    static func portableChecksum(_ bytes: Span<UInt8>, seed: UInt32 = 0) -> UInt32 {
        let tables = Self.tables.span
        var crc = ~seed
        var index = 0
        let whole = bytes.count & ~7
        while index < whole {
            let low =
                crc
                ^ (UInt32(bytes[index]) | UInt32(bytes[index &+ 1]) << 8 | UInt32(bytes[index &+ 2]) << 16
                    | UInt32(bytes[index &+ 3]) << 24)
            let high =
                UInt32(bytes[index &+ 4]) | UInt32(bytes[index &+ 5]) << 8 | UInt32(bytes[index &+ 6]) << 16
                | UInt32(bytes[index &+ 7]) << 24
            crc =
                tables[7 &* 256 &+ Int(low & 0xff)] ^ tables[6 &* 256 &+ Int(low >> 8 & 0xff)]
                ^ tables[5 &* 256 &+ Int(low >> 16 & 0xff)] ^ tables[4 &* 256 &+ Int(low >> 24)]
                ^ tables[3 &* 256 &+ Int(high & 0xff)] ^ tables[2 &* 256 &+ Int(high >> 8 & 0xff)]
                ^ tables[256 &+ Int(high >> 16 & 0xff)] ^ tables[Int(high >> 24)]
            index &+= 8
        }
        while index < bytes.count {
            crc = crc >> 8 ^ tables[Int((crc ^ UInt32(bytes[index])) & 0xff)]
            index &+= 1
        }
        return ~crc
    }

    /// `tables[256 * k + byte]` is the effect of `byte` followed by `k` zero bytes.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 {
                crc = crc & 1 == 1 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1
            }
            tables[byte] = crc
        }
        for index in 256..<8 * 256 {
            let previous = tables[index - 256]
            tables[index] = previous >> 8 ^ tables[Int(previous & 0xff)]
        }
        return tables
    }()
}
