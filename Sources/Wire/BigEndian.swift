/// Kafka's binary forms: big-endian fields at fixed places of a buffer, and zigzag varints. Record batches, requests and
/// answers, and the broker's files are made of them.
extension Span<UInt8> {
    @inlinable
    public func bigEndian<T: FixedWidthInteger>(at offset: Int, as type: T.Type = T.self) -> T {
        var value: T = 0
        for index in offset..<offset &+ MemoryLayout<T>.size {
            value = value << 8 | T(truncatingIfNeeded: self[index])
        }
        return value
    }
}

extension [UInt8] {
    @inlinable
    public mutating func setBigEndian<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<MemoryLayout<T>.size {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> T(T.bitWidth - 8 - 8 * index))
        }
    }

    @inlinable
    public mutating func appendBigEndian<T: FixedWidthInteger>(_ value: T) {
        for index in 0..<MemoryLayout<T>.size {
            append(UInt8(truncatingIfNeeded: value >> T(T.bitWidth - 8 - 8 * index)))
        }
    }

    @inlinable
    public mutating func appendZigzag(_ value: Int64) {
        var rest = UInt64(bitPattern: value << 1 ^ value >> 63)
        while rest >= 0x80 {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }
}
