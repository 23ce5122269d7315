/// Which positions may be committed: those behind which all output is acknowledged.
///
/// What a runner does between two closes is an *epoch*: the records written in it, and where each partition stood at
/// its end. Epochs become committable in their order. A commit at an epoch's end is consistent: the membership position
/// in it is the one that the next message was, or will be, joined at.
public struct JoinProgress: Sendable {
    public struct Mark: Equatable, Sendable {
        public var partition: Int32
        /// Tells lives of a partition in this process apart: a mark of an earlier life is void.
        public var life: UInt32
        public var positions: Positions

        public init(partition: Int32, life: UInt32, positions: Positions) {
            (self.partition, self.life, self.positions) = (partition, life, positions)
        }
    }

    private struct Epoch: Sendable {
        var unacknowledged = 0
        var written: UInt64 = 0
        var marks: [Mark] = []
        var isClosed = false
    }

    /// Bits of a tag that number the records of an epoch; the rest numbers the epochs, so tags always grow.
    static let recordBits: UInt64 = 24

    private var epochs: [Epoch] = [Epoch()]
    private var firstNumber: UInt64 = 1

    public init() {}

    public var unacknowledged: Int { epochs.reduce(0) { $0 + $1.unacknowledged } }
    /// Whether the epoch has so many records that it should be closed.
    public var isLong: Bool { epochs[epochs.count - 1].written >= 1 << (Self.recordBits - 1) }

    /// The tag of the next record to be written.
    public mutating func tag() -> UInt64 {
        let last = epochs.count - 1
        epochs[last].unacknowledged += 1
        epochs[last].written += 1
        return (firstNumber + UInt64(last)) << Self.recordBits | (epochs[last].written - 1)
    }

    public mutating func acknowledged(_ tag: UInt64) {
        let number = tag >> Self.recordBits
        precondition(number >= firstNumber, "a record is acknowledged once")
        epochs[Int(number - firstNumber)].unacknowledged -= 1
    }

    /// Ends the epoch: these partitions have moved in it, to these positions.
    public mutating func close(_ marks: [Mark]) {
        let last = epochs.count - 1
        if marks.isEmpty, epochs[last].written == 0 { return }
        epochs[last].marks = marks
        epochs[last].isClosed = true
        epochs.append(Epoch())
    }

    /// Hands out the marks of all epochs that are complete, in their order.
    public mutating func complete(_ body: (Mark) -> Void) {
        var count = 0
        while epochs[count].isClosed, epochs[count].unacknowledged == 0 {
            epochs[count].marks.forEach(body)
            count += 1
        }
        if count > 0 {
            epochs.removeFirst(count)
            firstNumber += UInt64(count)
        }
    }
}
