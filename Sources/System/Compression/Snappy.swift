internal import CCompression

/// Snappy, plain (librdkafka) and in the framing of the Java library xerial, which Java clients write: the magic bytes,
/// two version numbers, and blocks with their lengths before them. Reading tells them apart by the magic.
enum Snappy {
    private static let magic: [UInt8] = [0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]
    private static let headerBytes = 16

    static func compress(_ bytes: Span<UInt8>) throws(SystemError) -> [UInt8] {
        let bound = snappy_max_compressed_length(bytes.count)
        var status = SNAPPY_OK
        let output = unsafe bytes.withUnsafeBytes { input in
            unsafe [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
                var length = bound
                status = unsafe snappy_compress(
                    input.baseAddress?.assumingMemoryBound(to: CChar.self), input.count,
                    UnsafeMutableRawPointer(buffer.baseAddress)?.assumingMemoryBound(to: CChar.self), &length)
                count = status == SNAPPY_OK ? length : 0
            }
        }
        guard status == SNAPPY_OK else { throw SystemError(.other, "compress", on: "snappy", message: "failed") }
        return output
    }

    static func decompress(_ bytes: Span<UInt8>, maxBytes: Int) throws(SystemError) -> [UInt8] {
        var output: [UInt8] = []
        guard isFramed(bytes) else {
            try append(bytes, to: &output, maxBytes: maxBytes)
            return output
        }
        var place = headerBytes
        while place < bytes.count {
            guard place + 4 <= bytes.count else { throw Codec.snappy.corrupt("a block's length is cut off") }
            var length = 0
            for index in place..<(place + 4) { length = length << 8 | Int(bytes[index]) }
            place += 4
            guard length <= bytes.count - place else { throw Codec.snappy.corrupt("a block is cut off") }
            try append(bytes.extracting(place..<(place + length)), to: &output, maxBytes: maxBytes)
            place += length
        }
        return output
    }

    private static func isFramed(_ bytes: Span<UInt8>) -> Bool {
        guard bytes.count >= headerBytes else { return false }
        for index in magic.indices where bytes[index] != magic[index] { return false }
        return true
    }

    private static func append(_ block: Span<UInt8>, to output: inout [UInt8], maxBytes: Int) throws(SystemError) {
        var length = 0
        let known = unsafe block.withUnsafeBytes { input in
            unsafe snappy_uncompressed_length(
                input.baseAddress?.assumingMemoryBound(to: CChar.self), input.count, &length)
        }
        guard known == SNAPPY_OK else { throw Codec.snappy.corrupt("a block does not start with its length") }
        guard length <= maxBytes - output.count else { throw Codec.snappy.tooLarge(maxBytes) }
        var status = SNAPPY_OK
        let part = unsafe block.withUnsafeBytes { input in
            // One byte at least: the library wants an address even for nothing.
            unsafe [UInt8](unsafeUninitializedCapacity: max(1, length)) { buffer, count in
                var written = length
                status = unsafe snappy_uncompress(
                    input.baseAddress?.assumingMemoryBound(to: CChar.self), input.count,
                    UnsafeMutableRawPointer(buffer.baseAddress)?.assumingMemoryBound(to: CChar.self), &written)
                count = status == SNAPPY_OK ? written : 0
            }
        }
        guard status == SNAPPY_OK else { throw Codec.snappy.corrupt("a block cannot be decoded") }
        if output.isEmpty { output = part } else { output += part }
    }
}
