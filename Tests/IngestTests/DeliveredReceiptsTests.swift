import Testing
import Wire

@testable import Ingest

struct DeliveredReceiptsTests {
    private let chat = ChatID(UUID(high: 3, low: 1))

    @Test func `a device tells once a second and chat what it has, the last of it, and only forward`() {
        var receipts = DeliveredReceipts()
        var told = [receipts.take(chat, 5, nowMs: 1_000)]
        for seq in 6...9 as ClosedRange<Int64> { told.append(receipts.take(chat, seq, nowMs: 1_100)) }
        told.append(receipts.take(chat, 7, nowMs: 1_200))
        #expect(told == [true, false, false, false, false, false])
        let early = receipts.takeDue(nowMs: 1_999)
        let due = receipts.takeDue(nowMs: 2_000)
        #expect(early.isEmpty && due.map(\.seq) == [9])
        // The second begins anew with what was told.
        let again = [receipts.take(chat, 9, nowMs: 2_500), receipts.take(chat, 10, nowMs: 2_900)]
        #expect(again == [false, false])
        let later = [receipts.takeDue(nowMs: 3_000), receipts.takeDue(nowMs: 4_000)]
        #expect(later.map { $0.map(\.seq) } == [[10], []])
        #expect(receipts.isEmpty)
    }

    @Test func `one that comes after its second is told at once, whether or not somebody has looked since`() {
        var receipts = DeliveredReceipts()
        let told = [
            receipts.take(chat, 1, nowMs: 0), receipts.take(chat, 2, nowMs: 1_000),
            receipts.take(chat, 3, nowMs: 1_999),
        ]
        #expect(told == [true, true, false])
    }

    @Test func `what waits when the session ends is told, and chats do not wait for one another`() {
        var receipts = DeliveredReceipts()
        let other = ChatID(UUID(high: 3, low: 2))
        let told = [
            receipts.take(chat, 1, nowMs: 0), receipts.take(chat, 2, nowMs: 10), receipts.take(other, 7, nowMs: 10),
        ]
        let rest = receipts.takeDue(nowMs: nil)
        #expect(told == [true, false, true] && rest.map(\.seq) == [2])
    }

    @Test func `a device that tells of chats without end is remembered for so many`() {
        var receipts = DeliveredReceipts()
        var told = 0
        for number in 0..<10_000 as Range<UInt64> {
            if receipts.take(ChatID(UUID(high: 4, low: number)), 1, nowMs: 0) { told += 1 }
        }
        #expect(told == DeliveredReceipts.chatsMax)
        let due = receipts.takeDue(nowMs: 1_000)
        #expect(due.isEmpty && receipts.isEmpty)
    }
}
