/// A queue whose elements keep their number from being appended to being removed. Storage is a power of two and grows
/// when full; nothing moves otherwise.
struct Ring<Element> {
    private var storage: [Element?] = []
    private(set) var start: UInt64
    private(set) var end: UInt64

    init(startingAt number: UInt64 = 0) {
        start = number
        end = number
    }

    var count: Int { Int(end - start) }
    var isEmpty: Bool { start == end }

    func contains(_ number: UInt64) -> Bool { number >= start && number < end }

    @inline(__always)
    private func place(_ number: UInt64) -> Int { Int(number & UInt64(storage.count - 1)) }

    subscript(_ number: UInt64) -> Element {
        @inline(__always)
        get {
            guard contains(number), let element = storage[place(number)] else {
                preconditionFailure("element \(number) of \(start)..<\(end)")
            }
            return element
        }
        @inline(__always)
        set { storage[place(number)] = newValue }
    }

    mutating func append(_ element: Element) {
        if count == storage.count { grow() }
        storage[place(end)] = element
        end += 1
    }

    mutating func removeFirst() -> Element {
        let element = self[start]
        storage[place(start)] = nil
        start += 1
        return element
    }

    private mutating func grow() {
        var larger = [Element?](repeating: nil, count: max(16, storage.count * 2))
        for number in start..<end { larger[Int(number & UInt64(larger.count - 1))] = storage[place(number)] }
        storage = larger
    }
}
