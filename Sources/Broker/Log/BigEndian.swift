/// Big-endian fields at fixed places of a buffer: record batches, index entries and journal entries.
extension Span<UInt8> {
    func bigEndian<T: FixedWidthInteger>(at offset: Int, as type: T.Type = T.self) -> T {
        var value: T = 0
        for index in offset..<offset &+ MemoryLayout<T>.size {
            value = value << 8 | T(truncatingIfNeeded: self[index])
        }
        return value
    }
}

extension [UInt8] {
    mutating func setBigEndian<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<MemoryLayout<T>.size {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> T(T.bitWidth - 8 - 8 * index))
        }
    }

    mutating func appendBigEndian<T: FixedWidthInteger>(_ value: T) {
        for index in 0..<MemoryLayout<T>.size {
            append(UInt8(truncatingIfNeeded: value >> T(T.bitWidth - 8 - 8 * index)))
        }
    }
}
