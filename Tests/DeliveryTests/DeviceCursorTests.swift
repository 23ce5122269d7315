import Delivery
import PushLink
import Testing

struct DeviceCursorTests {
    private func cursor(_ offset: Int64) -> Cursor { Cursor(offset: offset, timestamp: 1_000 + offset) }
    private func key(_ number: Int) -> DeviceKey { DeviceKey(user: user(number), device: device(number)) }

    @Test func `a device's cursor only goes forward, and is written once an interval`() {
        var cursors = DeviceCursors(intervalMs: 1_000)
        cursors.store(key(1), cursor(5))
        cursors.store(key(1), cursor(7))
        cursors.store(key(1), cursor(6))
        #expect(cursors.take(nowMs: 10_000) == [key(1): cursor(7)])
        cursors.store(key(1), cursor(8))
        #expect(cursors.take(nowMs: 10_500).isEmpty)
        #expect(cursors.take(nowMs: 11_000) == [key(1): cursor(8)])
    }

    @Test func `while the database is away only so many devices wait, and those go on`() {
        var cursors = DeviceCursors(waitingMax: 3)
        for number in 0..<10 { cursors.store(key(number), cursor(1)) }
        for number in 0..<10 { cursors.store(key(number), cursor(2)) }
        let taken = cursors.takeAll()
        #expect(taken == [key(0): cursor(2), key(1): cursor(2), key(2): cursor(2)])
        // Who was dropped begins at an older place, and not at one that was never written.
        #expect(cursors.recall(key(3)) == nil)
        cursors.putBack(taken)
        cursors.store(key(0), cursor(3))
        #expect(cursors.takeAll()[key(0)] == cursor(3))
    }
}
