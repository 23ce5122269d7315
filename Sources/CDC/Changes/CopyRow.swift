internal import Wire

/// One row of COPY's text format, its escapes undone: values and where they stand. Reused from row to row.
struct CopyRow: ~Copyable {
    private(set) var bytes: [UInt8] = []
    private(set) var slots: [ColumnSlot] = []

    /// Reads one line, with or without its line break.
    mutating func read(_ line: Span<UInt8>) throws(CDCError) {
        bytes.removeAll(keepingCapacity: true)
        slots.removeAll(keepingCapacity: true)
        var end = line.count
        if end > 0, line[end - 1] == UInt8(ascii: "\n") { end -= 1 }
        var index = 0
        var run = 0
        var start = 0
        var isNull = false
        while true {
            let isAtEnd = index == end
            if isAtEnd || line[index] == UInt8(ascii: "\t") {
                bytes.append(line.extracting(run..<index))
                slots.append(ColumnSlot(kind: isNull ? .null : .text, start: start, end: bytes.count))
                if isAtEnd { return }
                index += 1
                (run, start, isNull) = (index, bytes.count, false)
                continue
            }
            guard line[index] == UInt8(ascii: "\\") else {
                index += 1
                continue
            }
            guard index + 1 < end else { throw CDCError(.protocol, "COPY ended a row in the middle of an escape") }
            bytes.append(line.extracting(run..<index))
            switch line[index + 1] {
            case UInt8(ascii: "N"): isNull = true
            case UInt8(ascii: "b"): bytes.append(0x08)
            case UInt8(ascii: "f"): bytes.append(0x0c)
            case UInt8(ascii: "n"): bytes.append(0x0a)
            case UInt8(ascii: "r"): bytes.append(0x0d)
            case UInt8(ascii: "t"): bytes.append(0x09)
            case UInt8(ascii: "v"): bytes.append(0x0b)
            case UInt8(ascii: "\\"): bytes.append(0x5c)
            default: throw CDCError(.protocol, "COPY used an escape that it does not have")
            }
            index += 2
            run = index
        }
    }
}
