import Runtime
import Synchronization
import Testing

@Suite struct BoundedQueueTests {
    @Test func `the receiver is woken once for a batch`() {
        let wakes = Counter()
        let queue = BoundedQueue<Int>(capacity: 10) { wakes.add() }
        var batch: [Int] = []
        for number in 0..<5 { #expect(queue.push(number) == .accepted) }
        #expect(wakes.value == 1)
        #expect(queue.take(into: &batch) && batch == [0, 1, 2, 3, 4])
        #expect(queue.take(into: &batch) && batch.isEmpty)
        _ = queue.push(9)
        #expect(wakes.value == 2)
    }

    @Test func `a full queue says so, and an empty one takes even what is too large`() {
        let queue = BoundedQueue<Int>(capacity: 10) {}
        #expect(queue.push(0, cost: 100) == .accepted)
        #expect(queue.push(1) == .full)
        var batch: [Int] = []
        _ = queue.take(into: &batch)
        #expect(queue.push(1, cost: 10) == .accepted)
        #expect(queue.push(2) == .full)
    }

    @Test func `a closed queue gives what it holds and then ends`() {
        let queue = BoundedQueue<Int>(capacity: 10) {}
        _ = queue.push(1)
        queue.close()
        #expect(queue.push(2) == .closed)
        var batch: [Int] = []
        #expect(queue.take(into: &batch) && batch == [1])
        #expect(!queue.take(into: &batch))
    }
}
