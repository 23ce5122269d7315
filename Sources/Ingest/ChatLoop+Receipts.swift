import PushLink
import System
import Wire

/// What devices have, on its way to those who wrote it.
extension ChatLoop {
    func delivered(_ chat: ChatID, _ seq: Int64, _ client: Client, _ session: Session) {
        guard receipts[client.number, default: DeliveredReceipts()].take(chat, seq, nowMs: loop.monotonicMs) else {
            return
        }
        signal(.delivered, chat, seq, session)
    }

    /// Tells what has waited for its second.
    func tellDelivered() {
        for number in Array(receipts.keys) {
            guard let (_, session) = session(number) else {
                receipts[number] = nil
                continue
            }
            tellDelivered(number, session, nowMs: loop.monotonicMs)
        }
    }

    /// Without a time, all that waits: the session ends.
    func tellDelivered(_ number: SessionNumber, _ session: Session, nowMs: UInt64? = nil) {
        guard var waiting = receipts.removeValue(forKey: number) else { return }
        for (chat, seq) in waiting.takeDue(nowMs: nowMs) { signal(.delivered, chat, seq, session) }
        if nowMs != nil, !waiting.isEmpty { receipts[number] = waiting }
    }
}
