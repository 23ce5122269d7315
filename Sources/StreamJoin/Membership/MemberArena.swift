/// The cells in which all chats keep their members: one array, cut into blocks of fixed sizes.
///
/// A chat's block grows and shrinks with it; a freed block waits in the list of its size for the next chat that needs
/// one. Sizes are 1 to 8, then four steps to each doubling, so that at most a fifth of a block is unused.
struct MemberArena: Sendable {
    private(set) var cells: [UInt32] = []
    /// For each size class the first free block; a free block's first cell names the next one.
    private(set) var freeBlocks = [UInt32](repeating: Self.none, count: Self.classCount)
    private(set) var freeCells = 0

    static let none = UInt32.max
    static let classCount = 9 + 4 * 29

    init() {}

    /// Cells as they were, with no free block in between.
    init(compact cells: [UInt32]) {
        self.cells = cells
    }

    /// As a checkpoint has it.
    init(cells: [UInt32], freeBlocks: [UInt32], freeCells: Int) {
        (self.cells, self.freeBlocks, self.freeCells) = (cells, freeBlocks, freeCells)
    }

    /// The class of the smallest block that holds so many.
    static func sizeClass(for count: Int) -> Int {
        if count <= 8 { return count }
        let exponent = Int.bitWidth - 1 - (count - 1).leadingZeroBitCount
        return 9 + (exponent - 3) * 4 + (count - 1) >> (exponent - 2) - 4
    }

    static func size(ofClass sizeClass: Int) -> Int {
        if sizeClass <= 8 { return sizeClass }
        let (octave, step) = (sizeClass - 9).quotientAndRemainder(dividingBy: 4)
        return (5 + step) << (octave + 1)
    }

    subscript(index: Int) -> UInt32 {
        @inline(__always) get { cells[index] }
        @inline(__always) set { cells[index] = newValue }
    }

    /// A block of undefined content.
    mutating func allocate(sizeClass: Int) -> Int {
        guard sizeClass > 0 else { return 0 }
        let size = Self.size(ofClass: sizeClass)
        let free = freeBlocks[sizeClass]
        if free != Self.none {
            freeBlocks[sizeClass] = cells[Int(free)]
            freeCells -= size
            return Int(free)
        }
        let start = cells.count
        precondition(start + size < Int(Self.none), "more members than a table can hold")
        if start + size > cells.capacity { cells.reserveCapacity(start + size + start / 4 + 64) }
        for _ in 0..<size { cells.append(0) }
        return start
    }

    mutating func release(_ start: Int, sizeClass: Int) {
        guard sizeClass > 0 else { return }
        cells[start] = freeBlocks[sizeClass]
        freeBlocks[sizeClass] = UInt32(start)
        freeCells += Self.size(ofClass: sizeClass)
    }

    mutating func move(_ count: Int, from source: Int, to target: Int) {
        if target < source {
            for index in 0..<count { cells[target + index] = cells[source + index] }
        } else {
            for index in stride(from: count - 1, through: 0, by: -1) { cells[target + index] = cells[source + index] }
        }
    }

    mutating func fill(_ range: Range<Int>, with value: UInt32) {
        for index in range { cells[index] = value }
    }

    var bytes: Int { cells.capacity * 4 + freeBlocks.capacity * 4 }
}
