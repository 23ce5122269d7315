/// The hash by which Kafka's Java client spreads keys (MurmurHash2, seed 0x9747b28c), so that a record written by any
/// client with the same key lands on the partition where Fanout expects it.
@inlinable
public func murmur2(_ bytes: Span<UInt8>) -> Int32 {
    let multiplier: UInt32 = 0x5bd1_e995
    let count = bytes.count
    var hash = 0x9747_b28c ^ UInt32(truncatingIfNeeded: count)
    var index = 0
    while index &+ 4 <= count {
        var word =
            UInt32(bytes[index]) | UInt32(bytes[index &+ 1]) << 8
            | UInt32(bytes[index &+ 2]) << 16 | UInt32(bytes[index &+ 3]) << 24
        word = word &* multiplier
        word ^= word >> 24
        word = word &* multiplier
        hash = hash &* multiplier ^ word
        index &+= 4
    }
    let rest = count &- index
    if rest > 0 {
        if rest > 2 { hash ^= UInt32(bytes[index &+ 2]) << 16 }
        if rest > 1 { hash ^= UInt32(bytes[index &+ 1]) << 8 }
        hash ^= UInt32(bytes[index])
        hash = hash &* multiplier
    }
    hash ^= hash >> 13
    hash = hash &* multiplier
    hash ^= hash >> 15
    return Int32(bitPattern: hash)
}

/// The partition of a key among `count` partitions.
@inlinable
public func partition(forKey key: Span<UInt8>, count: Int32) -> Int32 {
    (murmur2(key) & 0x7fff_ffff) % count
}

extension UUID {
    /// The partition of this id's text form, which is the key on every topic that has one.
    @inlinable
    public func partition(count: Int32) -> Int32 {
        (murmur2OfText & 0x7fff_ffff) % count
    }

    /// `murmur2` of the 36 characters, four at a time as they would stand in the text, without writing them.
    @inlinable
    var murmur2OfText: Int32 {
        let dash: UInt32 = 0x2d
        let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0xffff)
        let (d, e) = (low >> 48, low & 0xffff_ffff_ffff)
        var hash = 0x9747_b28c ^ UInt32(Self.textCount)
        Self.mix(Self.text4(a >> 16), into: &hash)
        Self.mix(Self.text4(a & 0xffff), into: &hash)
        // "-bbb", "b-cc", "cc-d", "ddd-": the dashes shift the groups against the words.
        let (textB, textC, textD) = (Self.text4(b), Self.text4(c), Self.text4(d))
        Self.mix(dash | textB << 8, into: &hash)
        Self.mix(textB >> 24 | dash << 8 | textC << 16, into: &hash)
        Self.mix(textC >> 16 | dash << 16 | textD << 24, into: &hash)
        Self.mix(textD >> 8 | dash << 24, into: &hash)
        Self.mix(Self.text4(e >> 32), into: &hash)
        Self.mix(Self.text4(e >> 16 & 0xffff), into: &hash)
        Self.mix(Self.text4(e & 0xffff), into: &hash)
        hash ^= hash >> 13
        hash = hash &* 0x5bd1_e995
        hash ^= hash >> 15
        return Int32(bitPattern: hash)
    }

    /// Four hexadecimal digits as the bytes of a word, the first one lowest.
    @inlinable
    static func text4(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: text(value)).byteSwapped }

    @inlinable
    static func mix(_ word: UInt32, into hash: inout UInt32) {
        var word = word &* 0x5bd1_e995
        word ^= word >> 24
        hash = hash &* 0x5bd1_e995 ^ word &* 0x5bd1_e995
    }
}

extension ID {
    @inlinable
    public func partition(count: Int32) -> Int32 { uuid.partition(count: count) }
}
