internal import CLinux

/// What a stream has yet to send: fragments of shared arrays and file ranges, in order. It belongs to a stream only
/// while there is something to send; then the loop keeps it for the next one.
final class Outbox {
    /// A range of an array or of a file. Fields rather than cases, so that reading a place counts no reference.
    private struct Fragment {
        var bytes: [UInt8] = []
        var file: SharedFile?
        var start: Int
        var end: Int

        var count: Int { end - start }
    }

    /// Small writes that follow one another share a buffer of this size instead of taking a fragment each.
    private static let gatherBytes = 4096

    private var fragments: [Fragment] = []
    private var head = 0
    /// The last fragment is this queue's own buffer with room for more.
    private var lastIsOpen = false
    private(set) var bytes = 0
    /// Those of them that are in files and hold no memory.
    private var fileBytes = 0

    var memoryBytes: Int { bytes - fileBytes }

    var count: Int { fragments.count - head }
    var isEmpty: Bool { head == fragments.count }
    var isWorthKeeping: Bool { fragments.capacity <= 1024 }

    func append(_ array: [UInt8], start: Int, end: Int) {
        fragments.append(Fragment(bytes: array, start: start, end: end))
        bytes += end - start
        lastIsOpen = false
    }

    func append(_ file: SharedFile, offset: Int64, count: Int) {
        fragments.append(Fragment(file: file, start: Int(offset), end: Int(offset) + count))
        bytes += count
        fileBytes += count
        lastIsOpen = false
    }

    /// Copies the bytes, behind those copied just before when they fit there.
    func append(copying span: Span<UInt8>) {
        bytes += span.count
        let last = fragments.count - 1
        if lastIsOpen, fragments[last].bytes.count + span.count <= Self.gatherBytes {
            unsafe span.withUnsafeBufferPointer { unsafe fragments[last].bytes.append(contentsOf: $0) }
            fragments[last].end += span.count
            return
        }
        var array: [UInt8] = []
        array.reserveCapacity(max(span.count, 256))
        unsafe span.withUnsafeBufferPointer { unsafe array.append(contentsOf: $0) }
        fragments.append(Fragment(bytes: array, start: 0, end: span.count))
        lastIsOpen = true
    }

    /// A file range at the front.
    var frontFile: (file: SharedFile, offset: Int64, count: Int)? {
        guard head < fragments.count, let file = fragments[head].file else { return nil }
        return (file, Int64(fragments[head].start), fragments[head].count)
    }

    /// Points `segments` at the arrays at the front, up to the first file range. The pointers hold until the queue
    /// changes: the queue keeps the arrays, nothing mutates a shared array in place, and an array of bytes never moves.
    func fill(_ segments: UnsafeMutablePointer<iovec>, max: Int) -> (count: Int, fileFollows: Bool) {
        var used = 0
        var index = head
        while index < fragments.count, used < max {
            if fragments[index].file != nil { return (used, true) }
            let start = fragments[index].start
            unsafe fragments[index].bytes.withUnsafeBytes { buffer in
                unsafe segments[used].iov_base = UnsafeMutableRawPointer(mutating: buffer.baseAddress)?.advanced(
                    by: start)
            }
            unsafe segments[used].iov_len = fragments[index].count
            used += 1
            index += 1
        }
        return (used, false)
    }

    /// Copies the front of the queue into `buffer`, for TLS, which encrypts one contiguous record at a time.
    func copy(into buffer: UnsafeMutablePointer<UInt8>, max: Int) -> Int {
        var filled = 0
        var index = head
        while index < fragments.count, filled < max, fragments[index].file == nil {
            let start = fragments[index].start
            let part = min(fragments[index].count, max - filled)
            unsafe fragments[index].bytes.withUnsafeBufferPointer { source in
                guard let base = source.baseAddress else { return }
                unsafe (buffer + filled).update(from: base + start, count: part)
            }
            filled += part
            index += 1
        }
        return filled
    }

    /// Removes what has been sent from the front.
    func advance(by sent: Int) {
        bytes -= sent
        var left = sent
        while left > 0 {
            let part = min(left, fragments[head].count)
            if fragments[head].file != nil { fileBytes -= part }
            fragments[head].start += part
            left -= part
            if fragments[head].count == 0 {
                // Lets go of the array now rather than when the whole queue has left.
                fragments[head] = Fragment(start: 0, end: 0)
                head += 1
            }
        }
        if head == fragments.count {
            fragments.removeAll(keepingCapacity: true)
            head = 0
            lastIsOpen = false
        } else if head > 256, head > fragments.count / 2 {
            fragments.removeFirst(head)
            head = 0
        }
    }

    func removeAll() {
        fragments.removeAll(keepingCapacity: true)
        head = 0
        bytes = 0
        fileBytes = 0
        lastIsOpen = false
    }
}
