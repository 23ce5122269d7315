internal import CCompression

/// The compressions of the Kafka record format, by the numbers that it gives them.
public enum Codec: UInt8, Sendable, CaseIterable, CustomStringConvertible {
    case none = 0
    case gzip = 1
    case snappy = 2
    case lz4 = 3
    case zstd = 4

    public var description: String {
        switch self {
        case .none: "none"
        case .gzip: "gzip"
        case .snappy: "snappy"
        case .lz4: "lz4"
        case .zstd: "zstd"
        }
    }

    public func compress(_ bytes: Span<UInt8>) throws(SystemError) -> [UInt8] {
        switch self {
        case .none: copyOf(bytes)
        case .gzip: try Zlib.compressGzip(bytes)
        case .snappy: try Snappy.compress(bytes)
        case .lz4: try LZ4.compress(bytes)
        case .zstd: try Zstandard.compress(bytes)
        }
    }

    /// The content, or `tooLarge` once it exceeds `maxBytes` (a few bytes may announce gigabytes), or `corrupt`.
    public func decompress(_ bytes: Span<UInt8>, maxBytes: Int) throws(SystemError) -> [UInt8] {
        switch self {
        case .none:
            guard bytes.count <= maxBytes else { throw tooLarge(maxBytes) }
            return copyOf(bytes)
        case .gzip: return try Zlib.decompressGzip(bytes, maxBytes: maxBytes)
        case .snappy: return try Snappy.decompress(bytes, maxBytes: maxBytes)
        case .lz4: return try LZ4.decompress(bytes, maxBytes: maxBytes)
        case .zstd: return try Zstandard.decompress(bytes, maxBytes: maxBytes)
        }
    }

    public func compress(_ bytes: [UInt8]) throws(SystemError) -> [UInt8] { try compress(bytes.span) }

    public func decompress(_ bytes: [UInt8], maxBytes: Int) throws(SystemError) -> [UInt8] {
        try decompress(bytes.span, maxBytes: maxBytes)
    }

    func corrupt(_ reason: String) -> SystemError {
        SystemError(.corrupt, "decompress", on: "\(self)", message: reason)
    }

    func tooLarge(_ maxBytes: Int) -> SystemError {
        SystemError(.tooLarge, "decompress", on: "\(self)", message: "the content is larger than \(maxBytes) bytes")
    }
}

func copyOf(_ bytes: Span<UInt8>) -> [UInt8] {
    unsafe bytes.withUnsafeBufferPointer { unsafe Array($0) }
}

/// Runs a decoder that fills one buffer after another, and gathers what it yields up to a limit.
struct Gather {
    static let stepBytes = 64 << 10
    var output: [UInt8] = []
    let maxBytes: Int
    let codec: Codec

    mutating func append(_ part: UnsafeBufferPointer<UInt8>) throws(SystemError) {
        guard output.count + part.count <= maxBytes else { throw codec.tooLarge(maxBytes) }
        unsafe output.append(contentsOf: part)
    }
}

enum LZ4 {
    static func compress(_ bytes: Span<UInt8>) throws(SystemError) -> [UInt8] {
        let bound = LZ4F_compressFrameBound(bytes.count, nil)
        var result = 0
        let output = unsafe bytes.withUnsafeBytes { input in
            unsafe [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
                result = unsafe LZ4F_compressFrame(buffer.baseAddress, bound, input.baseAddress, input.count, nil)
                count = LZ4F_isError(result) == 0 ? result : 0
            }
        }
        guard LZ4F_isError(result) == 0 else { throw SystemError(.other, "compress", on: "lz4", message: text(result)) }
        return output
    }

    static func decompress(_ bytes: Span<UInt8>, maxBytes: Int) throws(SystemError) -> [UInt8] {
        var context: OpaquePointer?
        guard unsafe LZ4F_isError(LZ4F_createDecompressionContext(&context, UInt32(LZ4F_VERSION))) == 0 else {
            throw SystemError(.noMemory, "decompress", on: "lz4", message: "out of memory")
        }
        defer { _ = unsafe LZ4F_freeDecompressionContext(context) }
        var gather = Gather(maxBytes: maxBytes, codec: .lz4)
        let buffer = UnsafeMutablePointer<UInt8>.allocate(capacity: Gather.stepBytes)
        defer { unsafe buffer.deallocate() }
        var place = 0
        while place < bytes.count {
            var consumed = 0
            var produced = 0
            // 0 at a frame's end; frames may follow one another.
            var hint = 1
            repeat {
                produced = Gather.stepBytes
                consumed = bytes.count - place
                hint = unsafe bytes.withUnsafeBytes { input in
                    unsafe LZ4F_decompress(
                        context, buffer, &produced, input.baseAddress?.advanced(by: place), &consumed, nil)
                }
                guard LZ4F_isError(hint) == 0 else { throw Codec.lz4.corrupt(text(hint)) }
                try unsafe gather.append(UnsafeBufferPointer(start: buffer, count: produced))
                place += consumed
            } while hint != 0 && (consumed > 0 || produced > 0)
            guard hint == 0 else { throw Codec.lz4.corrupt("the content is cut off") }
        }
        return gather.output
    }

    private static func text(_ code: Int) -> String { unsafe String(cString: LZ4F_getErrorName(code)) }
}

enum Zstandard {
    static func compress(_ bytes: Span<UInt8>, level: Int32 = 3) throws(SystemError) -> [UInt8] {
        let bound = ZSTD_compressBound(bytes.count)
        var result = 0
        let output = unsafe bytes.withUnsafeBytes { input in
            unsafe [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
                result = unsafe ZSTD_compress(buffer.baseAddress, bound, input.baseAddress, input.count, level)
                count = ZSTD_isError(result) == 0 ? result : 0
            }
        }
        guard ZSTD_isError(result) == 0 else {
            throw SystemError(.other, "compress", on: "zstd", message: text(result))
        }
        return output
    }

    /// By streaming: Java clients write frames that do not say how large their content is.
    static func decompress(_ bytes: Span<UInt8>, maxBytes: Int) throws(SystemError) -> [UInt8] {
        guard let context = unsafe ZSTD_createDCtx() else {
            throw SystemError(.noMemory, "decompress", on: "zstd", message: "out of memory")
        }
        defer { _ = unsafe ZSTD_freeDCtx(context) }
        var gather = Gather(maxBytes: maxBytes, codec: .zstd)
        let buffer = UnsafeMutablePointer<UInt8>.allocate(capacity: Gather.stepBytes)
        defer { unsafe buffer.deallocate() }
        var place = 0
        var hint = 0
        var wasFull = false
        while place < bytes.count || wasFull {
            var produced = 0
            hint = unsafe bytes.withUnsafeBytes { raw in
                var input = unsafe ZSTD_inBuffer(src: raw.baseAddress, size: raw.count, pos: place)
                var output = unsafe ZSTD_outBuffer(dst: buffer, size: Gather.stepBytes, pos: 0)
                let hint = unsafe ZSTD_decompressStream(context, &output, &input)
                place = unsafe input.pos
                produced = unsafe output.pos
                return hint
            }
            guard ZSTD_isError(hint) == 0 else { throw Codec.zstd.corrupt(text(hint)) }
            try unsafe gather.append(UnsafeBufferPointer(start: buffer, count: produced))
            wasFull = hint != 0 && produced == Gather.stepBytes
        }
        guard hint == 0 else { throw Codec.zstd.corrupt("the content is cut off") }
        return gather.output
    }

    private static func text(_ code: Int) -> String { unsafe String(cString: ZSTD_getErrorName(code)) }
}
