internal import CCompression

/// A zlib stream keeps its own address, so it lives on the heap and never moves.
@safe
private final class ZStream {
    let pointer: UnsafeMutablePointer<z_stream>
    private let isDeflate: Bool

    /// `windowBits` as zlib reads them: negative for raw deflate, +16 for gzip, +32 for gzip or zlib by their heads.
    init(deflating windowBits: Int32, level: Int32, memoryLevel: Int32) throws(SystemError) {
        unsafe pointer = .allocate(capacity: 1)
        unsafe pointer.initialize(to: z_stream())
        isDeflate = true
        let status = unsafe deflateInit2_(
            pointer, level, Z_DEFLATED, windowBits, memoryLevel, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
            Int32(MemoryLayout<z_stream>.size))
        try check(status)
    }

    init(inflating windowBits: Int32) throws(SystemError) {
        unsafe pointer = .allocate(capacity: 1)
        unsafe pointer.initialize(to: z_stream())
        isDeflate = false
        try check(unsafe inflateInit2_(pointer, windowBits, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)))
    }

    private func check(_ status: Int32) throws(SystemError) {
        if status == Z_OK { return }
        throw SystemError(
            status == Z_MEM_ERROR ? .noMemory : .invalidArgument, "set up compression", message: "zlib error \(status)")
    }

    deinit {
        if isDeflate { _ = unsafe deflateEnd(pointer) } else { _ = unsafe inflateEnd(pointer) }
        unsafe pointer.deallocate()
    }
}

enum Zlib {
    static func compressGzip(_ bytes: Span<UInt8>) throws(SystemError) -> [UInt8] {
        let stream = try ZStream(deflating: 15 + 16, level: Z_DEFAULT_COMPRESSION, memoryLevel: 8)
        let bound = Int(unsafe deflateBound(stream.pointer, UInt(bytes.count)))
        var status = Z_OK
        let output = unsafe bytes.withUnsafeBufferPointer { input in
            unsafe [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
                unsafe stream.pointer.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
                unsafe stream.pointer.pointee.avail_in = UInt32(input.count)
                unsafe stream.pointer.pointee.next_out = buffer.baseAddress
                unsafe stream.pointer.pointee.avail_out = UInt32(bound)
                status = unsafe deflate(stream.pointer, Z_FINISH)
                count = bound - Int(unsafe stream.pointer.pointee.avail_out)
            }
        }
        guard status == Z_STREAM_END else {
            throw SystemError(.other, "compress", on: "gzip", message: "zlib error \(status)")
        }
        return output
    }

    /// gzip, also several members one after another, or zlib.
    static func decompressGzip(_ bytes: Span<UInt8>, maxBytes: Int) throws(SystemError) -> [UInt8] {
        let stream = try ZStream(inflating: 15 + 32)
        var gather = Gather(maxBytes: maxBytes, codec: .gzip)
        let buffer = UnsafeMutablePointer<UInt8>.allocate(capacity: Gather.stepBytes)
        defer { unsafe buffer.deallocate() }
        var place = 0
        while true {
            let (status, consumed, produced) = unsafe inflateStep(stream, bytes, from: place, into: buffer)
            place += consumed
            try unsafe gather.append(UnsafeBufferPointer(start: buffer, count: produced))
            if status == Z_STREAM_END {
                if place == bytes.count { return gather.output }
                _ = unsafe inflateReset(stream.pointer)
            } else if status != Z_OK {
                throw Codec.gzip.corrupt(
                    status == Z_BUF_ERROR ? "the content is cut off" : reason(stream, status))
            }
        }
    }

    fileprivate static func inflateStep(
        _ stream: ZStream, _ bytes: Span<UInt8>, from place: Int, into buffer: UnsafeMutablePointer<UInt8>
    ) -> (status: Int32, consumed: Int, produced: Int) {
        unsafe bytes.withUnsafeBufferPointer { input in
            let available = UInt32(input.count - place)
            unsafe stream.pointer.pointee.next_in = UnsafeMutablePointer(
                mutating: input.baseAddress?.advanced(by: place))
            unsafe stream.pointer.pointee.avail_in = available
            unsafe stream.pointer.pointee.next_out = buffer
            unsafe stream.pointer.pointee.avail_out = UInt32(Gather.stepBytes)
            let status = unsafe inflate(stream.pointer, Z_SYNC_FLUSH)
            return unsafe (
                status, Int(available - stream.pointer.pointee.avail_in),
                Gather.stepBytes - Int(stream.pointer.pointee.avail_out)
            )
        }
    }

    fileprivate static func reason(_ stream: ZStream, _ status: Int32) -> String {
        if let message = unsafe stream.pointer.pointee.msg { return unsafe String(cString: message) }
        return "zlib error \(status)"
    }
}

/// The compressing side of WebSocket's permessage-deflate (RFC 7692): raw deflate, one message at a time, each ended by
/// a flush whose last four bytes are left out. With the window kept between messages, later ones refer to earlier ones;
/// that costs (1 << (windowBits + 2)) + (1 << (memoryLevel + 9)) bytes for as long as this lives.
public struct Deflater: ~Copyable {
    private let stream: ZStream

    public init(windowBits: Int = 15, level: Int = 1, memoryLevel: Int = 8) throws(SystemError) {
        stream = try ZStream(deflating: -Int32(windowBits), level: Int32(level), memoryLevel: Int32(memoryLevel))
    }

    /// Appends the compressed message. Without `keepingWindow` the next message will not refer to this one.
    public mutating func compress(_ message: Span<UInt8>, into output: inout [UInt8], keepingWindow: Bool = true) {
        let start = output.count
        let buffer = UnsafeMutablePointer<UInt8>.allocate(capacity: Gather.stepBytes)
        defer { unsafe buffer.deallocate() }
        unsafe message.withUnsafeBufferPointer { input in
            unsafe stream.pointer.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
            unsafe stream.pointer.pointee.avail_in = UInt32(input.count)
            repeat {
                unsafe stream.pointer.pointee.next_out = buffer
                unsafe stream.pointer.pointee.avail_out = UInt32(Gather.stepBytes)
                // Fails only when there is nothing left to do.
                _ = unsafe deflate(stream.pointer, Z_SYNC_FLUSH)
                let count = Gather.stepBytes - Int(unsafe stream.pointer.pointee.avail_out)
                unsafe output.append(contentsOf: UnsafeBufferPointer(start: buffer, count: count))
            } while unsafe stream.pointer.pointee.avail_out == 0
        }
        if output.count - start >= 4 { output.removeLast(4) }
        // An empty message has flushed nothing; it is one empty block.
        if output.count == start { output.append(0) }
        if !keepingWindow { _ = unsafe deflateReset(stream.pointer) }
    }
}

/// The reading side of permessage-deflate.
public struct Inflater: ~Copyable {
    private let stream: ZStream

    public init(windowBits: Int = 15) throws(SystemError) {
        stream = try ZStream(inflating: -Int32(windowBits))
    }

    /// Appends the message's content; throws `tooLarge` when it is more than `maxBytes` and `corrupt` when it is none.
    /// After either the stream is of no more use.
    public mutating func decompress(
        _ message: Span<UInt8>, into output: inout [UInt8], maxBytes: Int, keepingWindow: Bool = true
    ) throws(SystemError) {
        let start = output.count
        let buffer = UnsafeMutablePointer<UInt8>.allocate(capacity: Gather.stepBytes)
        defer { unsafe buffer.deallocate() }
        let tail: [UInt8] = [0, 0, 0xff, 0xff]
        for part in 0..<2 {
            let bytes = part == 0 ? message : tail.span
            var place = 0
            while true {
                let (status, consumed, produced) = unsafe Zlib.inflateStep(stream, bytes, from: place, into: buffer)
                place += consumed
                guard output.count - start + produced <= maxBytes else {
                    throw SystemError(
                        .tooLarge, "decompress", on: "deflate", message: "the content is larger than \(maxBytes) bytes")
                }
                unsafe output.append(contentsOf: UnsafeBufferPointer(start: buffer, count: produced))
                // A final block ends the stream; a message may go on after it, from an empty window.
                if status == Z_STREAM_END { _ = unsafe inflateReset(stream.pointer) }
                if status != Z_OK, status != Z_STREAM_END, status != Z_BUF_ERROR {
                    throw SystemError(
                        .corrupt, "decompress", on: "deflate", message: Zlib.reason(stream, status))
                }
                if place == bytes.count, produced < Gather.stepBytes { break }
                if consumed == 0, produced == 0 { break }
            }
        }
        if !keepingWindow { _ = unsafe inflateReset(stream.pointer) }
    }
}
