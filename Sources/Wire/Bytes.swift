extension [UInt8] {
    /// Appends borrowed bytes; compiles to one memory copy.
    @inlinable
    public mutating func append(_ bytes: Span<UInt8>) {
        // Nothing appended to an empty array would write to the storage that all empty arrays of all threads share.
        guard !bytes.isEmpty else { return }
        append(addingCapacity: bytes.count) { output in
            for index in bytes.indices { output.append(bytes[index]) }
        }
    }

    @inlinable
    public init(copying bytes: Span<UInt8>) {
        self = []
        append(bytes)
    }

    /// Appends the decimal digits of a number without making a string.
    @inlinable
    public mutating func appendDecimal(_ number: some FixedWidthInteger) {
        if number < 0 { append(0x2d) }
        appendDigits(UInt64(number.magnitude))
    }

    @inlinable
    mutating func appendDigits(_ number: UInt64) {
        var divisor: UInt64 = 1
        var count = 1
        while number / divisor >= 10 {
            divisor *= 10
            count += 1
        }
        append(addingCapacity: count) { output in
            var rest = number
            for _ in 0..<count {
                output.append(UInt8(truncatingIfNeeded: rest / divisor) &+ 0x30)
                rest %= divisor
                divisor /= 10
            }
        }
    }
}

extension Span<UInt8> {
    @inlinable
    public func elementsEqual(_ other: Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        for index in indices where self[index] != other[index] { return false }
        return true
    }

    @inlinable
    public func elementsEqual(_ text: String) -> Bool {
        let utf8 = text.utf8
        guard utf8.count == count else { return false }
        var index = 0
        for byte in utf8 {
            if self[index] != byte { return false }
            index += 1
        }
        return true
    }
}

extension String {
    /// Borrowed bytes as text; what is not UTF-8 is replaced, so only for messages to people.
    public init(showing bytes: Span<UInt8>) {
        self.init(decoding: [UInt8](copying: bytes), as: UTF8.self)
    }
}
