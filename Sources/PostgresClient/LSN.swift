/// A place in Postgres' write-ahead log. Zero stands for "none".
@frozen
public struct LSN: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let value: UInt64

    @inlinable
    public init(_ value: UInt64) { self.value = value }

    public static let zero = LSN(0)

    /// Reads Postgres' own form, `16/B374D848`.
    public init?(_ text: some StringProtocol) {
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count == 2, halves.allSatisfy({ (1...8).contains($0.utf8.count) }),
            let high = UInt32(halves[0], radix: 16), let low = UInt32(halves[1], radix: 16)
        else { return nil }
        value = UInt64(high) << 32 | UInt64(low)
    }

    @inlinable
    public static func < (left: LSN, right: LSN) -> Bool { left.value < right.value }

    public var description: String {
        String(value >> 32, radix: 16, uppercase: true) + "/"
            + String(value & 0xffff_ffff, radix: 16, uppercase: true)
    }
}
