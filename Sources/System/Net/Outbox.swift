internal import CLinux

/// What a stream has yet to send: fragments of shared arrays and file ranges, in order. It belongs to a stream only
/// while there is something to send; then the loop keeps it for the next one.
final class Outbox {
    enum Fragment {
        case bytes([UInt8], start: Int, end: Int)
        case file(SharedFile, offset: Int64, count: Int)
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
        fragments.append(.bytes(array, start: start, end: end))
        bytes += end - start
        lastIsOpen = false
    }

    func append(_ file: SharedFile, offset: Int64, count: Int) {
        fragments.append(.file(file, offset: offset, count: count))
        bytes += count
        fileBytes += count
        lastIsOpen = false
    }

    /// Copies the bytes, behind those copied just before when they fit there.
    func append(copying span: Span<UInt8>) {
        let count = span.count
        bytes += count
        if lastIsOpen, case .bytes(var array, let start, let end) = fragments[fragments.count - 1],
            array.count + count <= Self.gatherBytes
        {
            // Out of the queue while it grows: a second reference would make appending copy it.
            fragments[fragments.count - 1] = .bytes([], start: 0, end: 0)
            unsafe span.withUnsafeBufferPointer { unsafe array.append(contentsOf: $0) }
            fragments[fragments.count - 1] = .bytes(array, start: start, end: end + count)
            return
        }
        var array: [UInt8] = []
        array.reserveCapacity(max(count, 256))
        unsafe span.withUnsafeBufferPointer { unsafe array.append(contentsOf: $0) }
        fragments.append(.bytes(array, start: 0, end: count))
        lastIsOpen = true
    }

    /// A file range at the front.
    var frontFile: (file: SharedFile, offset: Int64, count: Int)? {
        guard head < fragments.count, case .file(let file, let offset, let count) = fragments[head] else { return nil }
        return (file, offset, count)
    }

    /// Points `segments` at the arrays at the front, up to the first file range. The pointers hold until the queue
    /// changes: the queue keeps the arrays, nothing mutates a shared array in place, and an array of bytes never moves.
    func fill(_ segments: UnsafeMutablePointer<iovec>, max: Int) -> (count: Int, fileFollows: Bool) {
        var used = 0
        var index = head
        while index < fragments.count, used < max {
            guard case .bytes(let array, let start, let end) = fragments[index] else { return (used, true) }
            unsafe array.withUnsafeBytes { buffer in
                unsafe segments[used].iov_base = UnsafeMutableRawPointer(mutating: buffer.baseAddress)?.advanced(
                    by: start)
                unsafe segments[used].iov_len = end - start
            }
            used += 1
            index += 1
        }
        return (used, false)
    }

    /// Copies the front of the queue into `buffer`, for TLS, which encrypts one contiguous record at a time.
    func copy(into buffer: UnsafeMutablePointer<UInt8>, max: Int) -> Int {
        var filled = 0
        var index = head
        while index < fragments.count, filled < max {
            guard case .bytes(let array, let start, let end) = fragments[index] else { break }
            let part = min(end - start, max - filled)
            unsafe array.withUnsafeBufferPointer { source in
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
            switch fragments[head] {
            case .bytes(let array, let start, let end):
                if left < end - start {
                    fragments[head] = .bytes(array, start: start + left, end: end)
                    left = 0
                } else {
                    left -= end - start
                    dropFront()
                }
            case .file(let file, let offset, let count):
                fileBytes -= min(left, count)
                if left < count {
                    fragments[head] = .file(file, offset: offset + Int64(left), count: count - left)
                    left = 0
                } else {
                    left -= count
                    dropFront()
                }
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

    private func dropFront() {
        // Lets go of the array now rather than when the whole queue has left.
        fragments[head] = .bytes([], start: 0, end: 0)
        head += 1
    }
}
