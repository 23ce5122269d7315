/// A queue whose elements keep their number from being appended to being removed. Storage is a power of two and grows
/// when full; nothing moves otherwise.
@frozen
public struct Ring<Element> {
    @usableFromInline var storage: [Element?] = []
    @usableFromInline var from: UInt64
    @usableFromInline var upTo: UInt64

    @inlinable public var start: UInt64 { from }
    @inlinable public var end: UInt64 { upTo }

    @inlinable
    public init(startingAt number: UInt64 = 0) {
        from = number
        upTo = number
    }

    @inlinable public var count: Int { Int(end - start) }
    @inlinable public var isEmpty: Bool { start == end }
    @inlinable public var first: Element? { isEmpty ? nil : self[start] }
    @inlinable public var last: Element? { isEmpty ? nil : self[end - 1] }

    @inlinable
    public func contains(_ number: UInt64) -> Bool { number >= start && number < end }

    @inlinable @inline(__always)
    func place(_ number: UInt64) -> Int { Int(number & UInt64(storage.count - 1)) }

    @inlinable
    public subscript(_ number: UInt64) -> Element {
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

    @inlinable
    public mutating func append(_ element: Element) {
        if count == storage.count { grow() }
        storage[place(end)] = element
        upTo += 1
    }

    @inlinable
    public mutating func removeFirst() -> Element {
        let element = self[start]
        storage[place(start)] = nil
        from += 1
        return element
    }

    @inlinable
    mutating func grow() {
        var larger = [Element?](repeating: nil, count: max(16, storage.count * 2))
        for number in start..<end { larger[Int(number & UInt64(larger.count - 1))] = storage[place(number)] }
        storage = larger
    }
}
